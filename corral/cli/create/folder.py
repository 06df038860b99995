"""Which files a path in a Modelfile means: one, a split set, or those of a model's folder. Source: spec cli §7."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from corral.cli.create.files import Part
from corral.cli.paths import check_file
from corral.errors import BadRequest, CorralError

_WEIGHTS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("adapter_model*.safetensors", "adapters.safetensors"),
    ("consolidated*.safetensors",),
    ("*.safetensors",),
    ("pytorch_model*.bin",),
    ("consolidated*.pth",),
    ("*.gguf",),
    ("*.bin",),
)
"""Patterns of a model's weights; the first group that matches anything counts."""
_BESIDE = (
    "*.json",
    "*/*.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "tokenizer.model",
    "vocab.txt",
)
"""What is taken along of a folder whose weights are not in GGUF."""

_POINTER = b"version https://git-lfs.github.com"

MAX_FILES = 1 << 14


def files_of(path: Path) -> Mapping[str, Part]:
    """The files by their names in the model: relative, with slashes. Errors name a file that cannot be part of one."""
    if path.is_dir():
        return {name: Part(file) for name, file in _files_in(path).items()}
    check_file(path)
    return {file.name: Part(file) for file in _parts(path)}


def _parts(path: Path) -> Iterator[Path]:
    """The file itself, or all of its split set that are there; the server says which are missing."""
    from corral.names import parse_split_part

    named = parse_split_part(path.name)
    if named is None or not named.suffix or named.count > MAX_FILES:
        yield path
        return
    for number in range(1, named.count + 1):
        part = path.with_name(named.sibling(number))
        if part == path or part.is_file():
            yield part


def _files_in(folder: Path) -> Mapping[str, Path]:
    weights = next((found for group in _WEIGHTS if (found := _matching(folder, group))), [])
    if not weights:
        raise CorralError("no Modelfile or safetensors files found")
    beside = [] if weights[0].suffix == ".gguf" else _matching(folder, _BESIDE)
    if len(weights) + len(beside) > MAX_FILES:
        raise BadRequest(f'"{folder}" has more than {MAX_FILES} files')
    for path in weights:
        _check_content(path)
    files = {path.relative_to(folder).as_posix(): path for path in (*weights, *beside)}
    for name, path in files.items():
        _check_inside(name, path, folder)
    return files


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _check_inside(name: str, path: Path, folder: Path) -> None:
    """A link out of a folder that came from elsewhere could take along any file of the user's."""
    target = path.resolve()
    if not target.is_relative_to(folder.resolve()):
        hint = "\nto have files instead of links, download the model with --local-dir"
        raise BadRequest(f"insecure path: {name}{hint if '.cache' in target.parts else ''}")


def _check_content(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise BadRequest(
                f"invalid content type: expected application/octet-stream for {path}\n"
                "it is a pointer of Git LFS: fetch the file itself with `git lfs pull`"
            )
