"""GGUF files written by hand, byte by byte, so that a test can lie in any place of one."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corral import gguf

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


class Raw(bytes):
    """A value given as the bytes to write."""


@dataclass(frozen=True)
class ArrayOf:
    """An array value; `length` may differ from the number of elements."""

    kind: int
    elements: Sequence[Any]
    length: int | None = None


@dataclass(frozen=True)
class FakeTensor:
    """An entry of the tensor list, true or not."""

    name: str | bytes
    shape: Sequence[int] = (4,)
    kind: int = 0
    offset: int = 0
    dimensions: int | None = None


@dataclass(frozen=True)
class Header:
    """What to write. Keys are (name, value type, value) and come in this order, twice if they are here twice."""

    keys: Sequence[tuple[str | bytes, int, Any]] = ()
    tensors: Sequence[FakeTensor] = ()
    data: bytes = b""
    version: int = 3
    order: Literal["<", ">"] = "<"
    magic: bytes = b"GGUF"
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def encode(self) -> bytes:
        """The file: the header, padding, the data."""
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        key_count = len(self.keys) if self.key_count is None else self.key_count
        parts = [self.magic, self._pack("I", self.version), self._word(tensor_count), self._word(key_count)]
        for name, kind, value in self.keys:
            parts += [self._text(name), self._pack("I", kind), self._value(kind, value)]
        for tensor in self.tensors:
            parts += [self._text(tensor.name), self._tensor(tensor)]
        head = b"".join(parts)
        return head + bytes(-len(head) % self.alignment) + self.data if self.data else head

    def _value(self, kind: int, value: Any) -> bytes:
        if isinstance(value, Raw):
            return value
        if kind == STRING:
            return self._text(value)
        if kind == ARRAY:
            length = len(value.elements) if value.length is None else value.length
            head = self._pack("I", value.kind) + self._word(length)
            return head + b"".join(self._value(value.kind, element) for element in value.elements)
        return self._pack(CODES[kind], value)

    def _tensor(self, tensor: FakeTensor) -> bytes:
        dimensions = len(tensor.shape) if tensor.dimensions is None else tensor.dimensions
        shape = b"".join(self._word(size) for size in tensor.shape)
        return self._pack("I", dimensions) + shape + self._pack("I", tensor.kind) + self._pack("Q", tensor.offset)

    def _text(self, text: str | bytes) -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        return self._word(len(raw)) + raw

    def _word(self, number: int) -> bytes:
        return self._pack("I" if self.version == 1 else "Q", number)

    def _pack(self, code: str, value: Any) -> bytes:
        return struct.pack(self.order + code, value)


def header_of(path: Path) -> Header:
    """What to write for a file that is there, so that a test can change one thing in it."""
    file = gguf.read_structure(path)
    numbers = {kind.name: number for number, kind in gguf.TENSOR_TYPES.items()}
    keys = [(key, int(file.types[key]), _rewritten(file, key)) for key in file.metadata]
    tensors = [
        FakeTensor(tensor.name, tensor.shape, numbers[tensor.type], tensor.offset - file.data_offset)
        for tensor in file.tensors
    ]
    return Header(keys, tensors, path.read_bytes()[file.data_offset :], alignment=file.alignment)


def _rewritten(file: gguf.GGUF, key: str) -> Any:
    value = file.metadata[key]
    return ArrayOf(value.type, file.values(key)) if isinstance(value, gguf.Array) else value
