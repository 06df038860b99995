"""How each program lays its models out. Each function takes a folder, which need not be there, and gives `Found`."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from corral.adopting.found import File, Found, Left
from corral.adopting.grouping import Repository, grouped, in_name, together
from corral.adopting.walk import Walked, one_file, walk
from corral.config.tools import ToolFolders
from corral.errors import reason_of
from corral.names import DEFAULT_HOST, parse_split_part
from corral.sources.hub.files import HOST

LM_STUDIO = "LM Studio"
HUGGING_FACE = "Hugging Face"
LLAMA_CPP = "llama.cpp"
FOLDER = "a folder"

_CONVERT = "`corral create NAME` in that folder converts it"

_REPOSITORY = re.compile(r"models--(?:(?P<owner>[A-Za-z0-9_.-]+?)--)?(?P<model>[A-Za-z0-9_.-]+)\Z")
_MANIFEST = re.compile(r"manifest=([^=]+)=([^=]+)=[^=]*\.json\Z")


def everything(folders: ToolFolders, named: Iterable[Path] = ()) -> Found:
    """What the programs have, and what is in folders, or is a file, that somebody named."""
    return together(
        [
            *(plain(path) for path in named),
            *(lm_studio(root) for root in folders.lm_studio),
            *(hugging_face(root) for root in folders.hugging_face),
            *(llama_cpp(root) for root in folders.llama_cpp),
        ]
    )


def lm_studio(root: Path) -> Found:
    """`PUBLISHER/REPOSITORY/FILE.gguf`, projectors beside: the models are called `PUBLISHER/REPOSITORY:LEVEL`."""
    if not root.is_dir():
        return Found()
    walked = walk(root)

    def repository(file: File) -> Repository | None:
        folders = file.path.relative_to(root).parts[:-1]
        publisher, model = (in_name(part) for part in folders[:2]) if len(folders) >= 2 else ("", "")
        return (DEFAULT_HOST, publisher.replace(".", "-"), model) if publisher and model else None

    return together([_by_repository(walked, LM_STUDIO, repository), _rest(walked, _CONVERT)])


def hugging_face(root: Path) -> Found:
    """`models--OWNER--NAME`, each with `snapshots` of links to `blobs`: called `hf.co/…`, as a pull from there."""
    if not root.is_dir():
        return Found()
    try:
        repositories = sorted(path for path in root.iterdir() if _REPOSITORY.match(path.name) and path.is_dir())
    except OSError as error:
        return Found(left=(Left(root, f"cannot be read: {reason_of(error)}"),))
    return together(_hub_repository(path) for path in repositories)


def _hub_repository(folder: Path) -> Found:
    """The snapshot that `main` is at, else the newest one."""
    match = _REPOSITORY.match(folder.name)
    assert match is not None
    owner, model = match["owner"] or "", match["model"]
    try:
        unfinished = [Left(path, _STOPPED) for path in sorted((folder / "blobs").glob("*.incomplete"))]
        snapshot = _snapshot(folder)
    except OSError as error:
        return Found(left=(Left(folder, f"cannot be read: {reason_of(error)}"),))
    if snapshot is None:
        return Found(left=tuple(unfinished))
    walked = walk(snapshot, inside=folder)
    models = grouped(walked.files, HUGGING_FACE, lambda _: (HOST, owner, model) if owner else None, is_shared=True)
    source = f"{owner}/{model}".lstrip("/")
    rest = _rest(walked, f"`hf download {source} --local-dir FOLDER`, then `corral create NAME` in that folder")
    return together([models, rest, Found(left=tuple(unfinished))])


_STOPPED = "is a download that has not finished"


def _snapshot(folder: Path) -> Path | None:
    snapshots = folder / "snapshots"
    with suppress(OSError, ValueError):
        commit = (folder / "refs" / "main").read_text("ascii")[:64].strip()
        if re.fullmatch(r"[0-9a-f]+", commit) and (snapshots / commit).is_dir():
            return snapshots / commit
    if not snapshots.is_dir():
        return None
    return max(
        (path for path in snapshots.iterdir() if path.is_dir()), key=lambda one: one.stat().st_mtime, default=None
    )


def llama_cpp(root: Path) -> Found:
    """`OWNER_NAME_FILE.gguf`, flat, beside `manifest=OWNER=NAME=TAG.json`, from which owner and name are known."""
    if not root.is_dir():
        return Found()
    walked = walk(root)
    owners = _owners(root)

    def repository(file: File) -> Repository | None:
        known = next((one for one in owners if file.path.name.startswith(f"{one[0]}_{one[1]}_")), None)
        return (HOST, *known) if known else None

    return together([_by_repository(walked, LLAMA_CPP, repository), _rest(walked, _CONVERT)])


def _owners(root: Path) -> list[tuple[str, str]]:
    """Owners and names of repositories, by the names of their manifests; the longest first."""
    found: list[tuple[str, str]] = []
    with suppress(OSError):  # said by the walk
        matches = (_MANIFEST.match(path.name) for path in root.iterdir())
        found += [(match[1], match[2]) for match in matches if match]
    return sorted(found, key=lambda one: -len("_".join(one)))


def plain(path: Path) -> Found:
    """A folder of any layout, or a file; a program's own folder is read as such."""
    if path.is_dir():
        if _REPOSITORY.match(path.name):
            return _hub_repository(path)
        with suppress(OSError):  # said below
            if any(_REPOSITORY.match(entry.name) for entry in path.iterdir()):
                return hugging_face(path)
        walked = walk(path)
        return together([_by_repository(walked, FOLDER, lambda _: None), _rest(walked, _CONVERT)])
    walked = one_file(path)
    parts = [other for file in walked.files for other in _siblings(file)]
    return together([grouped(parts, FOLDER, lambda _: None, is_shared=False), Found(left=tuple(walked.left))])


def _siblings(file: File) -> list[File]:
    """The file, and of a split model all other parts that lie beside it."""
    split = parse_split_part(file.path.name)
    if split is None:
        return [file]
    paths = (file.path.with_name(split.sibling(number)) for number in range(1, min(split.count, 10_000) + 1))
    return [other for path in paths if path.exists() for other in one_file(path).files]


def _by_repository(walked: Walked, tool: str, repository: Callable[[File], Repository | None]) -> Found:
    """The models of each repository, and of files that are in none, those of each folder."""
    groups: dict[Repository | Path, list[File]] = {}
    for file in walked.files:
        groups.setdefault(repository(file) or file.path.parent, []).append(file)
    return together(grouped(files, tool, repository, is_shared=isinstance(key, tuple)) for key, files in groups.items())


def _rest(walked: Walked, how_to_convert: str) -> Found:
    """What no model was made of."""
    checkpoints = [
        Left(folder, f"has safetensors, which have to be converted: {how_to_convert}") for folder in walked.checkpoints
    ]
    return Found(left=(*walked.left, *checkpoints))
