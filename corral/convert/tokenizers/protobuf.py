"""Reads messages in Protocol Buffers' wire format, within bounds. Knows no message's fields.

Source: protobuf.dev, "Encoding".
"""

import struct
from collections.abc import Iterator
from typing import TypeAlias

Field: TypeAlias = int | float | memoryview
"""A number, a 32-bit or 64-bit float, or the bytes of text or of a message within."""


class BrokenMessageError(Exception):
    """Bytes that are no message; says where."""


def fields(message: memoryview) -> Iterator[tuple[int, Field]]:
    """Every field of a message in its order, with its number; fixed 4 and 8 bytes are read as floats."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        value: Field
        if kind == _VARINT:
            value, position = _varint(message, position)
        elif kind == _BYTES:
            length, start = _varint(message, position)
            position = _end(message, start, length)
            value = message[start:position]
        elif kind in _FIXED:
            start, position = position, _end(message, position, struct.calcsize(_FIXED[kind]))
            value = struct.unpack_from(_FIXED[kind], message, start)[0]
        else:
            raise BrokenMessageError(f"a field of the unknown kind {kind} at byte {position}")
        if not number:
            raise BrokenMessageError(f"a field without a number before byte {position}")
        yield number, value


_VARINT = 0
_BYTES = 2
_FIXED = {1: "<d", 5: "<f"}
_LONGEST_VARINT = 10


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    value = 0
    for index in range(_LONGEST_VARINT):
        if position + index >= len(message):
            raise BrokenMessageError("it ends within a number")
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise BrokenMessageError(f"a number of too many bytes at byte {position}")


def _end(message: memoryview, start: int, length: int) -> int:
    if length > len(message) - start:
        raise BrokenMessageError(f"{length} bytes at byte {start} of {len(message)}")
    return start + length
