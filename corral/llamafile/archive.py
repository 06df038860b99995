"""The directory of a zip archive, at the end of any file, and where the bytes of its uncompressed members lie."""

import io
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from corral.errors import ModelFileError
from corral.system.files import BINARY, WITHOUT_WAITING

MAX_MEMBERS = 10_000
MAX_READ = 8 << 20
"""Bytes that are read at once: a directory of so many members is smaller."""
_LOCAL = struct.Struct("<4s22xHH")
"""A local header: its mark, and the lengths of the name and of the extra field behind it (APPNOTE 4.3.7)."""
_MARK = b"PK\x03\x04"
_IS_ENCRYPTED = 1


class Stretch(Struct, frozen=True):
    """Bytes of a file."""

    offset: int
    size: int


def opened(path: Path) -> BinaryIO:
    """A plain file for reading; `ModelFileError` for a device or a pipe, which could block or never end. `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | WITHOUT_WAITING | BINARY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFileError(f'"{path}" is not a file')
    return os.fdopen(descriptor, "rb")


def members(path: Path) -> dict[str, Stretch]:
    """The uncompressed members of the archive that a file ends with, by their names.

    `ModelFileError` for a directory that lies: stretches outside of the file or over each other, names that lead out of
    it or stand there twice, and weights that are compressed or encrypted. `OSError`.
    """
    with opened(path) as file:
        bounded = _Bounded(file)
        try:
            with zipfile.ZipFile(bounded) as archive:
                found = _found(archive, file)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError, LookupError) as error:
            raise ModelFileError(f"its archive cannot be read: {printable(str(error).lower())}") from error
    _check_apart(found)
    return found


def _found(archive: zipfile.ZipFile, file: BinaryIO) -> dict[str, Stretch]:
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        raise ModelFileError(f"its archive has {len(listed)} members: more than {MAX_MEMBERS}")
    found: dict[str, Stretch] = {}
    for info in listed:
        name = info.filename
        if not name or not name.isprintable():
            raise ModelFileError(f"its archive has a member with no name that can be shown: {name[:80]!r}")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ModelFileError(f'its archive has a member "{name}", whose name leads out of it')
        if name in found:
            raise ModelFileError(f'its archive has two members "{name}"')
        is_plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _IS_ENCRYPTED
        if not is_plain or info.is_dir():
            if name.lower().endswith(".gguf"):
                raise ModelFileError(f'"{name}" in its archive is compressed or encrypted; weights have to be stored')
            continue
        found[name] = _stretch(info, file, archive.start_dir)
    return found


def _stretch(info: zipfile.ZipInfo, file: BinaryIO, directory: int) -> Stretch:
    """By the member's local header, since the field in front of its bytes need not be as long as in the directory."""
    if not 0 <= info.header_offset < directory:
        raise ModelFileError(f'its archive has no member "{info.filename}" where it says so')
    file.seek(info.header_offset)
    mark, name_length, extra_length = _LOCAL.unpack(_whole(file, _LOCAL.size, info))
    name = _whole(file, name_length, info)
    if mark != _MARK or name.decode("utf-8", "replace") != info.orig_filename:
        raise ModelFileError(f'its archive has no member "{info.filename}" where it says so')
    start = info.header_offset + _LOCAL.size + name_length + extra_length
    if info.compress_size != info.file_size or start + info.file_size > directory:
        raise ModelFileError(f'"{info.filename}" in its archive is cut off, or its size is wrong')
    return Stretch(start, info.file_size)


def _whole(file: BinaryIO, size: int, info: zipfile.ZipInfo) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ModelFileError(f'its archive has no member "{info.filename}" where it says so')
    return data


def printable(text: str) -> str:
    """A sentence of the library's on one line: it may quote bytes of the file."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200]) or "it makes no sense"


def _check_apart(found: dict[str, Stretch]) -> None:
    end = 0
    for name, stretch in sorted(found.items(), key=lambda row: row[1].offset):
        if stretch.offset < end:
            raise ModelFileError(f'"{name}" in its archive lies over another member')
        end = stretch.offset + stretch.size


class _Bounded(io.RawIOBase):
    """A file of which no more than `MAX_READ` bytes are read at once, whatever a directory says of its own size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > MAX_READ:
            size = MAX_READ + 1
        data = self._file.read(size)
        if len(data) > MAX_READ:
            raise ModelFileError(f"the directory of its archive has more than {MAX_READ} bytes")
        return data
