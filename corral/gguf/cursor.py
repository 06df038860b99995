"""Reading forwards through the bytes of a GGUF file, never past its end. Knows numbers and strings, no meaning."""

import struct
from typing import BinaryIO, Literal

from corral.errors import ModelFileError
from corral.gguf.types import SCALAR_CODES, ValueType
from corral.golang.text import shortest_float32

MAX_STRING = 16 << 20
"""Bytes one string may have (spec cli §17)."""

WINDOW = 1 << 20
"""Bytes read at once, and so about all the memory that walking a file takes. Not more than `MAX_STRING`."""

ByteOrder = Literal["<", ">"]


class CutShortError(ModelFileError):
    """A file has fewer bytes than it is said to have: it became shorter, or only its beginning is there."""


class Cursor:
    """A place in a file. Plain reads, not a memory map: a file cut short by another program must not kill the process.

    `subject` is what is being read, for the sentences of errors. `wide` is false for version 1, whose lengths have
    32 bits instead of 64.
    """

    def __init__(self, file: BinaryIO, size: int, order: ByteOrder, *, wide: bool, position: int = 0) -> None:
        self._file = file
        self._size = size
        self._start = position  # where in the file the window begins
        self._window = b""
        self._at = 0  # the next byte within the window
        self._structs = {kind: struct.Struct(order + code) for kind, code in SCALAR_CODES.items()}
        self._length = self._structs[ValueType.UINT64 if wide else ValueType.UINT32]
        self.subject = "the header"

    @property
    def position(self) -> int:
        """Bytes from the beginning of the file."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """Bytes left in the file."""
        return self._size - self.position

    @property
    def length_size(self) -> int:
        """Bytes a length takes in this file."""
        return self._length.size

    def scalar(self, kind: ValueType) -> int | float | bool:
        """One value of fixed size. A 32-bit float comes as the shortest decimal that stands for it."""
        packed = self._structs[kind]
        value: int | float | bool = packed.unpack(self.take(packed.size))[0]
        return shortest_float32(value) if kind is ValueType.FLOAT32 else value

    def scalars(self, kind: ValueType, count: int) -> list[int | float | bool]:
        """`count` values of fixed size."""
        packed = self._structs[kind]
        values: list[int | float | bool] = [one for (one,) in packed.iter_unpack(self.take(packed.size * count))]
        return [shortest_float32(value) for value in values] if kind is ValueType.FLOAT32 else values

    def uint32(self) -> int:
        return int(self.scalar(ValueType.UINT32))

    def uint64(self) -> int:
        return int(self.scalar(ValueType.UINT64))

    def length(self) -> int:
        """A count or length: 64 bits, in version 1 of the format 32."""
        value: int = self._length.unpack(self.take(self._length.size))[0]
        return value

    def string(self) -> bytes:
        """One string, at most `MAX_STRING` bytes."""
        return self.take(self._string_length())

    def skip_strings(self, count: int) -> None:
        """Walks over `count` strings without keeping them: about 0.1 µs each."""
        unpack, prefix = self._length.unpack_from, self._length.size
        while count:
            window, at, last = self._window, self._at, len(self._window) - prefix
            while count and at <= last:
                following = at + prefix + unpack(window, at)[0]
                if following > len(window):
                    break
                at = following
                count -= 1
            self._at = at
            if count:
                self.skip(self._string_length())
                count -= 1

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if self._at + count > len(self._window):
            self._check(count)
            self._move(self.position, max(count, WINDOW))
            if len(self._window) < count:
                raise CutShortError(f"the file became shorter while {self.subject} was read")
        self._at += count
        return self._window[self._at - count : self._at]

    def skip(self, count: int) -> None:
        """Goes `count` bytes on."""
        self._check(count)
        if self._at + count <= len(self._window):
            self._at += count
        else:
            self._move(self.position + count, WINDOW)

    def _string_length(self) -> int:
        length = self.length()
        if length > MAX_STRING:
            raise ModelFileError(f"a string of {self.subject} has {length} bytes, more than {MAX_STRING}")
        return length

    def _check(self, count: int) -> None:
        if count > self.remaining:
            raise ModelFileError(f"{self.subject} needs {count} bytes, but the file ends after {self.remaining}")

    def _move(self, position: int, count: int) -> None:
        self._file.seek(position)
        self._start, self._at = position, 0
        self._window = self._file.read(min(count, self._size - position))
