"""The safetensors file format, read as from a stranger. Knows names, types, shapes and places of tensors, no meaning.

A file is a length (8 bytes, little-endian), a JSON object of that length, and the tensors' bytes without holes.
Whatever the bytes are, `read` returns or raises `ModelFileError`. Plain reads, no memory map: a file cut short by
another program must not kill the process.
"""

import json
import math
import os
import stat
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from corral.errors import ModelFileError
from corral.messages import Json

MAX_HEADER = 32 << 20
"""Bytes of JSON; files of today have at most some megabytes of it."""
MAX_TENSORS = 1 << 17
MAX_NAME = 512
MAX_DIMENSIONS = 8
MAX_DIMENSION = 1 << 40

WIDTHS = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes of an element, by the format's name of its type."""

Bytes = NDArray[np.uint8]


class StoredTensor(Struct, frozen=True):
    """A tensor in a file: its shape with the row length last, its place in bytes from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS[self.dtype]

    def read(self, start: int, count: int) -> Bytes:
        """`count` of the tensor's bytes from its `start`th, in memory of their own."""
        found = np.empty(count, np.uint8)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.offset + start)
                view, done = found.data, 0
                while done < count and (step := file.readinto(view[done:])):
                    done += step
        except OSError as error:
            raise ModelFileError(f'cannot read "{self.path.name}": {error.strerror}') from error
        if done < count:
            raise ModelFileError(f'"{self.path.name}" became shorter while tensor "{shortened(self.name)}" was read')
        return found


def read(path: Path, name: str) -> tuple[StoredTensor, ...]:
    """The tensors of a file, every claim of its header checked; `name` is what errors call it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening, which would wait for a pipe's other end
            raise ModelFileError(f'"{name}" is not a file')
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise ModelFileError(f'"{name}" has {size} bytes, too few for a safetensors file')
            if length > MAX_HEADER:
                raise ModelFileError(f'"{name}" claims a header of {length} bytes, more than {MAX_HEADER}')
            if length > size - 8:
                raise ModelFileError(f'"{name}" claims a header of {length} bytes, but has {size - 8} after its length')
            header = file.read(length)
    except OSError as error:
        raise ModelFileError(f'cannot read "{name}": {error.strerror}') from error
    entries = _entries(header, name)
    begin = 8 + length
    tensors = tuple(_tensor(key, value, path, begin, name) for key, value in entries.items())
    _check_places(tensors, begin, size, name)
    return tensors


def shortened(text: str) -> str:
    """A name of any length and characters as an error quotes it."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 120 else text[:119] + "…"


def _entries(header: bytes, name: str) -> dict[str, Json]:
    """The header's tensors as JSON; `__metadata__` is left out."""
    try:
        found = json.loads(header.decode(), object_pairs_hook=_without_twins)
    except _TwinError as error:
        raise ModelFileError(f'"{name}" has "{shortened(str(error))}" twice in its header') from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f'the header of "{name}" is not JSON') from error
    if not isinstance(found, dict):
        raise ModelFileError(f'the header of "{name}" is not a JSON object')
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(f'"__metadata__" of "{name}" is not an object of texts')
    if len(found) > MAX_TENSORS:
        raise ModelFileError(f'"{name}" has {len(found)} tensors, more than {MAX_TENSORS}')
    return found


class _TwinError(Exception):
    pass


def _without_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise _TwinError(key)
        found[key] = value
    return found


def _tensor(key: str, entry: Json, path: Path, begin: int, file: str) -> StoredTensor:
    if not 0 < len(key) <= MAX_NAME or not key.isprintable():
        raise ModelFileError(f'"{file}" has the tensor name "{shortened(key)}", which no tensor can have')
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f'tensor "{shortened(key)}" of "{file}" is not described by dtype, shape and data_offsets')
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise ModelFileError(f"unknown data type: {shortened(str(dtype))}")
    if not _are_counts(shape, MAX_DIMENSIONS):
        raise ModelFileError(f'tensor "{shortened(key)}" of "{file}" has a shape that no tensor can have')
    if not _are_counts(offsets, 2) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFileError(
            f'tensor "{shortened(key)}" of "{file}" has data_offsets that are not a beginning and an end'
        )
    size = offsets[1] - offsets[0]
    if math.prod(shape) * WIDTHS[dtype] != size:
        raise ModelFileError(
            f'tensor "{shortened(key)}" of "{file}" has {size} bytes, which is not its shape {shape} in {dtype}'
        )
    return StoredTensor(key, dtype, tuple(shape), path, begin + offsets[0], size)


def _are_counts(values: Json, most: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value <= MAX_DIMENSION for value in values)
    )


def _check_places(tensors: tuple[StoredTensor, ...], begin: int, size: int, file: str) -> None:
    """The tensors' bytes follow each other from the header's end to the file's, without holes."""
    at = begin
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset < at:
            raise ModelFileError(f'tensor "{shortened(tensor.name)}" of "{file}" begins within another tensor')
        if tensor.offset > at:
            raise ModelFileError(f'"{file}" has {tensor.offset - at} bytes that belong to no tensor')
        at += tensor.size
        if at > size:
            raise ModelFileError(
                f'tensor "{shortened(tensor.name)}" of "{file}" ends at {at}, after the {size} bytes of the file'
            )
    if at < size:
        raise ModelFileError(f'"{file}" has {size - at} bytes that belong to no tensor')
