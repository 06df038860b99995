"""A GGUF file in the hand: keys and tensors, to be changed and written again in any layout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from tests.gguf_bytes import BOOL, F32, I32, STRING, U32, ArrayOf, FakeTensor, Header, header_of

KINDS = {kind.value: kind for kind in GGMLQuantizationType}


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file: its shape has the row length first."""

    kind: int
    shape: tuple[int, ...]
    data: bytes

    def numbers(self) -> np.ndarray[Any, Any]:
        """As an array of the shape in NumPy's order, in 32-bit floats."""
        raw = np.frombuffer(self.data, np.uint8).reshape(int(np.prod(self.shape[1:])), -1)
        return np.asarray(quants.dequantize(raw, KINDS[self.kind])).reshape(self.shape[::-1])

    def as_kind(self, kind: GGMLQuantizationType) -> "Stored":
        return stored(self.numbers(), kind)


def stored(numbers: np.ndarray[Any, Any], kind: GGMLQuantizationType = GGMLQuantizationType.F32) -> Stored:
    raw = quants.quantize(np.ascontiguousarray(numbers, np.float32), kind)
    return Stored(kind.value, numbers.shape[::-1], raw.tobytes())


@dataclass
class Parts:
    """A file in the hand: keys with their types and values, and tensors."""

    keys: dict[str, tuple[int, Any]]
    tensors: dict[str, Stored] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "Parts":
        header = header_of(path)
        keys = {str(name): (kind, value) for name, kind, value in header.keys}
        tensors = {}
        for entry in header.tensors:
            size = _size(entry.kind, tuple(entry.shape))
            tensors[str(entry.name)] = Stored(
                entry.kind, tuple(entry.shape), header.data[entry.offset : entry.offset + size]
            )
        return cls(keys, tensors)

    def copy(self) -> "Parts":
        return Parts(dict(self.keys), dict(self.tensors))

    def put(self, **keys: Any) -> None:
        """Sets keys, their dots written as two underscores; the type is that of the value."""
        for name, value in keys.items():
            self.keys[name.replace("__", ".")] = typed(value)

    def drop(self, *names: str) -> None:
        for name in names:
            self.keys.pop(name, None)

    def rename_prefix(self, old: str, new: str) -> None:
        self.keys = {
            (new + key.removeprefix(old) if key.startswith(old) else key): value for key, value in self.keys.items()
        }

    def rename(self, change: Callable[[str], str]) -> None:
        self.tensors = {change(name): tensor for name, tensor in self.tensors.items()}

    def write(self, path: Path, *, order: Callable[[str], Any] | None = None) -> Path:
        """Keys sorted, tensors by block and then by name, as Ollama writes them; `order` is another order."""
        names = sorted(self.tensors, key=order or ollamas_order)
        entries, data = [], b""
        for name in names:
            tensor = self.tensors[name]
            entries.append(FakeTensor(name, tensor.shape, tensor.kind, len(data)))
            data += tensor.data + bytes(-len(tensor.data) % 32)
        keys = [(name, *self.keys[name]) for name in sorted(self.keys)]
        path.write_bytes(Header(keys, entries, data).encode())
        return path


def typed(value: Any) -> tuple[int, Any]:
    match value:
        case bool():
            return BOOL, value
        case int():
            return U32, value
        case float():
            return F32, value
        case str():
            return STRING, value
        case list():
            kind = typed(value[0])[0]
            return 9, ArrayOf(I32 if kind == U32 else kind, value)
        case _:
            return tuple(value)


def ollamas_order(name: str) -> tuple[int, str]:
    first, _, rest = name.partition(".")
    return (int(rest.partition(".")[0]), name) if first == "blk" else (1 << 30, name)


def _size(kind: int, shape: tuple[int, ...]) -> int:
    block, size = GGML_QUANT_SIZES[KINDS[kind]]
    return int(np.prod(shape)) // block * size


def replaced(table: Mapping[str, str]) -> Callable[[str], str]:
    """Names changed by the parts of them that the table has, the first that is found."""

    def change(name: str) -> str:
        for old, new in table.items():
            if old in name:
                return name.replace(old, new)
        return name

    return change
