"""Files of other programs with the bytes of blobs: what is on the disk twice, and what could be reclaimed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.adopting import tools
from corral.adopting.found import File
from corral.adopting.judging import inode_of
from corral.config.tools import ToolFolders
from corral.doctor.findings import Finding
from corral.errors import CorralError
from corral.golang.units import byte_text
from corral.names import Digest, Name
from corral.store import Store
from corral.store.adoptions import hash_file
from corral.store.disk import open_regular

SUBJECT = "Duplicates"
SHOWN = 10
"""Files that are shown one by one."""

Progress = Callable[[str, int, int], None]
"""Is called with a label, the bytes of all, and the bytes that are done."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob, and a model that has it."""

    digest: Digest
    path: Path
    model: Name


@dataclass(frozen=True, slots=True)
class Twin:
    """A file elsewhere that is as large as a blob. `is_certain`: their bytes are the same, else only their sizes."""

    file: File
    blob: Blob
    is_certain: bool


def examine(models: Path, folders: ToolFolders, verify: Progress | None = None) -> Iterator[Finding]:
    """What programs have that the store has, too. With `verify`, files of the size of a blob are read and hashed."""
    if not models.is_dir():
        return
    store = Store(models)
    try:
        blobs = _blobs(store)
    except CorralError:  # said by the examination of the store
        return
    finally:
        store.close()
    found = tools.everything(folders)
    yield from judged(list(twins([file for model in found.models for file in model.files], blobs, verify)))
    if count := sum(len(model.files) for model in found.models):
        size = byte_text(sum(model.size for model in found.models))
        text = f"other programs have {count} model {'file' if count == 1 else 'files'} of {size} in all"
        yield Finding(SUBJECT, "ok", text, "`corral adopt --dry-run` lists them")


def _blobs(store: Store) -> dict[int, list[Blob]]:
    """The blobs of models that are there, by their sizes; each once. `StoreError`."""
    found: dict[Digest, tuple[int, Blob]] = {}
    for stored in store.survey().models:
        for layer in stored.manifest.layers:
            found.setdefault(layer.digest, (layer.size, Blob(layer.digest, store.blob_path(layer.digest), stored.name)))
    by_size: dict[int, list[Blob]] = {}
    for size, blob in found.values():
        if blob.path.exists():
            by_size.setdefault(size, []).append(blob)
    return by_size


def twins(files: list[File], blobs: dict[int, list[Blob]], verify: Progress | None) -> Iterator[Twin]:
    """Files that take room of their own for what a blob has; one that shares the blob's inode takes none."""
    alike = {file.real: file for file in files if file.size in blobs and not _is_blob(file, blobs[file.size])}
    total = sum(file.size for file in alike.values() if file.digest is None)
    done = 0
    for file in alike.values():
        digest = file.digest
        if digest is None and verify is not None:
            digest = _digest(file, lambda now: verify("comparing", total, done + now))  # noqa: B023 - used at once
            done += file.size
        same = [blob for blob in blobs[file.size] if digest is None or blob.digest == digest]
        if same:
            yield Twin(file, same[0], digest is not None)


def _is_blob(file: File, blobs: list[Blob]) -> bool:
    state = inode_of(file.real)
    return state is not None and any(inode_of(blob.path) == state for blob in blobs)


def _digest(file: File, progress: Callable[[int], None]) -> Digest | None:
    """None for a file that cannot be read: then its size is all that is known."""
    try:
        with open_regular(file.real) as opened:
            return hash_file(opened, progress)
    except (OSError, CorralError):
        return None


def judged(found: list[Twin]) -> Iterator[Finding]:
    """What to say of files that are there twice: each, and what they take together."""
    for twin in found[:SHOWN]:
        size = byte_text(twin.file.size)
        if twin.is_certain:
            text = f'"{twin.file.path}" has the {size} of {twin.blob.model}, too'
            yield Finding(SUBJECT, "note", text)
        else:
            text = f'"{twin.file.path}" is as large as the file of {twin.blob.model}, {size}, and may be the same'
            yield Finding(SUBJECT, "note", text, "`corral doctor --verify` compares the bytes")
    if len(found) > SHOWN:
        yield Finding(SUBJECT, "note", f"and {len(found) - SHOWN} more files that are there twice")
    certain = sum(twin.file.size for twin in found if twin.is_certain)
    if certain:
        yield Finding(
            SUBJECT,
            "note",
            f"up to {byte_text(certain)} can be reclaimed (less where the files share disk blocks by reflinks)",
            "remove the model here with `corral rm` and take it over with `corral adopt`, or delete it in that program",
        )
