"""Models that are GGUF files of this machine, llamafiles or bundles: `file:///path`.

From a path to a manifest, the bytes where they are.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from corral import gguf, llamafile
from corral.background import Report, Work
from corral.errors import ModelFileError, NotFound
from corral.llamafile import bundles
from corral.messages import Progress
from corral.models import assemble
from corral.models.assemble import Source
from corral.names import Digest, Name, parse_split_part
from corral.sources.mirrors import FileMirror
from corral.store import Store, disk
from corral.system.files import exists


async def pull(
    mirror: FileMirror, name: Name, store: Store, *, link: bool = True, prune: bool = True
) -> AsyncGenerator[Progress, None]:
    """Makes a model of a GGUF file, or of the split set one of whose files is named, under `name`.

    A single file is taken over in place, as `Store.adopt` does it (`link`: a hard link will do); a split set is merged
    into a new file. The manifest is the one that creating a model from the file gives. `NotFound`, `BadRequest`,
    `ModelFileError`, `StoreError`.
    """
    yield Progress(f"pulling from {mirror}")
    work = Work(lambda report: _take(mirror.path, name, store, link, prune, report))
    async with aclosing(work.steps()) as steps:
        async for step in steps:
            yield step
    yield Progress("success")


def parts_of(path: Path) -> list[Path]:
    """The file itself, or all files of its split set; `ModelFileError` names one that is missing."""
    named = parse_split_part(path.name)
    if named is None or not named.suffix:
        return [path]
    parts = []
    for number in range(1, named.count + 1):
        part = path.with_name(named.sibling(number))
        if not part.is_file():
            raise ModelFileError(f'the split model lacks part {number} of {named.count}: "{part}"')
        parts.append(part)
    return parts


def _take(path: Path, name: Name, store: Store, link: bool, prune: bool, report: Report) -> None:
    with disk.explained(path, "reading"):
        if not exists(path):
            raise NotFound(f'no such file: "{path}"')
        container = llamafile.container(path)
    if container == "bundle":
        _unbundled(path, name, store, prune, report)
        return
    if container == "llamafile":
        made = _unpacked(path, store, report)
    else:
        _check_not_cut_off(path)
        made = assemble.assemble({part.name: part for part in parts_of(path)}, store, link=link, progress=report)
    try:
        report(Progress("writing manifest"))
        assemble.write_model(name, made, store, prune)
    except BaseException:
        store.discard(made.created)
        raise


def _unbundled(path: Path, name: Name, store: Store, prune: bool, report: Report) -> None:
    """The model in a bundle becomes one of the store's, under `name`, with the manifest and the blobs that it had."""
    found = bundles.read(path)
    created: list[Digest] = []
    try:
        for digest, stretch in found.files.items():
            count = assemble.throttled_progress(report, f"adding {digest.short}", str(digest), stretch.size)
            adopt_layer(path, digest, stretch, store, created, count)
        report(Progress("writing manifest"))
        store.write_manifest(name, found.manifest, prune)
    except BaseException:
        store.discard(created)
        raise


def adopt_layer(
    path: Path,
    digest: Digest,
    stretch: llamafile.Stretch,
    store: Store,
    created: list[Digest],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Makes a blob of a layer in a bundle; one that was not there is added to `created`, also when it is damaged.

    `ModelFileError` for bytes of another digest than `digest`, `StoreError`.
    """
    adopted = store.adopt_part(path, stretch.offset, stretch.size, progress)
    created += [adopted.digest] if adopted.created else []
    if adopted.digest != digest:
        raise ModelFileError(f'the bundle is damaged: its "{digest}" has the digest "{adopted.digest}"')


def _check_not_cut_off(path: Path) -> None:
    """`ModelFileError` for a bundle whose end is missing."""
    try:
        file = gguf.read_structure(path)
    except ModelFileError:
        return  # what else is wrong with the file is said where it is read
    bundles.check_whole(path, max((tensor.offset + tensor.size for tensor in file.tensors), default=0))


def _unpacked(path: Path, store: Store, report: Report) -> assemble.Assembled:
    """The model in a llamafile, with what its arguments say of answers."""
    found = llamafile.read(path)
    if found.arguments.ignored:
        listed = ", ".join(found.arguments.ignored)
        report(Progress(f"without {listed} of its arguments, which have no counterpart here"))
    created: list[Digest] = []
    files: dict[str, Source] = {}
    try:
        for file, stretch in found.files.items():
            count = assemble.throttled_progress(report, "hashing", assemble.NO_DIGEST, stretch.size)
            adopted = store.adopt_part(path, stretch.offset, stretch.size, count)
            files[file] = adopted.digest
            created += [adopted.digest] if adopted.created else []
        arguments = found.arguments
        made = assemble.assemble(
            files, store, progress=report, system=arguments.system, parameters=arguments.parameters
        )
    except BaseException:
        store.discard(created)
        raise
    return replace(made, created=(*made.created, *created))
