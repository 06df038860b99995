"""The tar format, as much of it as plain files need. Knows headers and padding, not what the files are for.

Archives are not trusted: only plain files and folders are read, every size is compared with what is left of the file,
and nothing of a size the archive chooses is kept in memory.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO

from corral.errors import SourceError

BLOCK = 512
END = bytes(2 * BLOCK)
"""What an archive ends with."""

_MAX_MEMBERS = 100_000
_MAX_EXTRA = 64 << 10
"""Bytes of a long name, or of all extended attributes of a member."""

_PLAIN, _FOLDER = b"0\0", b"5"
_LONG_NAME, _ATTRIBUTES, _COMMON_ATTRIBUTES = b"L", b"x", b"g"


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in an archive: `size` bytes from `offset` on."""

    name: str
    size: int
    offset: int


def header(name: str, size: int) -> bytes:
    """What goes before a plain file's bytes. Always the same for the same file: no owner, no time."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What goes after a file's bytes."""
    return bytes(-size % BLOCK)


def members(file: FileIO) -> Iterator[Member]:
    """The plain files of an archive in their order; `SourceError` for anything else but folders, and for damage."""
    end = os.fstat(file.fileno()).st_size
    position, extra = 0, _Extra()
    for _ in range(_MAX_MEMBERS):
        file.seek(position)
        block = file.read(BLOCK)
        if block == bytes(BLOCK):
            return
        if len(block) < BLOCK:
            raise SourceError("the archive is cut short" if position else "the file is not a tar archive")
        kind, size = _kind_and_size(block)
        size = extra.size if extra.size is not None and kind in _PLAIN else size
        position += BLOCK
        if size > end - position:
            raise SourceError("the archive is cut short")
        if kind in (_LONG_NAME, _ATTRIBUTES, _COMMON_ATTRIBUTES):
            extra.take(kind, _read_extra(file, size))
        elif kind in _PLAIN:
            yield Member(extra.name or _name(block), size, position)
            extra = _Extra()
        elif kind == _FOLDER:
            extra = _Extra()
        else:
            raise SourceError(f'"{extra.name or _name(block)}" in the archive is a link, a device or the like')
        position += size + -size % BLOCK
    raise SourceError(f"the archive has more than {_MAX_MEMBERS} files")


class _Extra:
    """What members before a file say about it."""

    def __init__(self) -> None:
        self.name = ""
        self.size: int | None = None

    def take(self, kind: bytes, data: bytes) -> None:
        if kind == _LONG_NAME:
            self.name = _text(data.rstrip(b"\0"))
        elif kind == _ATTRIBUTES:
            for key, value in _records(data):
                if key == b"path":
                    self.name = _text(value)
                elif key == b"size":
                    self.size = _decimal(value)
                elif key.startswith(b"GNU.sparse"):
                    raise SourceError("the archive has a file with holes")


def _read_extra(file: FileIO, size: int) -> bytes:
    if size > _MAX_EXTRA:
        raise SourceError(f"the archive has {size} bytes of attributes for one file")
    return file.read(size)


def _kind_and_size(block: bytes) -> tuple[bytes, int]:
    checksum = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if _octal(block[148:156]) != checksum:
        raise SourceError("the file is not a tar archive, or it is damaged")
    field = block[124:136]
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if size is None:
        raise SourceError("the archive has a file of no valid size")
    return block[156:157], size


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits or b"0", 8) if all(digit in b"01234567" for digit in digits) else None


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise SourceError("the archive has a file of no valid size")
    return int(value)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The `LENGTH KEY=VALUE\\n` records of extended attributes."""
    while data.rstrip(b"\0"):
        length, _, _ = data[:20].partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 10 else 0
        record = data[len(length) + 1 : size]
        if not record.endswith(b"\n") or len(data) < size:
            raise SourceError("the archive has attributes that cannot be read")
        key, _, value = record[:-1].partition(b"=")
        yield key, value
        data = data[size:]


def _name(block: bytes) -> str:
    name, prefix = block[:100].partition(b"\0")[0], b""
    if block[257:262] == b"ustar" and block[263:265] == b"00":
        prefix = block[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix else name)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SourceError("the archive has a file whose name is no text") from error
