"""Importance matrices: how much each place of a tensor's rows counted when the model read typical text.

Two formats, both of llama.cpp's: a GGUF file of the type `imatrix`, with sums of squares and the counts they are to be
divided by, and an older one (`.dat`), a list of entries. Read distrustfully; an entry's numbers only when asked for.
"""

import math
import os
import struct
from pathlib import Path

import numpy as np
from msgspec import Struct

from corral import gguf
from corral.errors import ModelFileError
from corral.gguf import Tensor
from corral.quantize.library import Floats

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_NAME = 1 << 10


class _Entry(Struct, frozen=True):
    """Where the numbers for a tensor stand: `length` sums at `offset`, to be divided by `divisor` or by `counts`."""

    offset: int
    length: int
    divisor: float = 1.0
    counts: tuple[int, int] = (0, 0)
    """Offset and number of the counts: one for each matrix of a tensor with several."""


class Imatrix:
    """An importance matrix whose structure was checked; its numbers are when they are asked for."""

    def __init__(self, path: Path) -> None:
        """`ModelFileError` for a file that is none."""
        self._path = path
        self._entries = _from_gguf(path) if gguf.looks_like_gguf(_beginning(path)) else _from_list(path)
        if not self._entries:
            raise ModelFileError(f'the importance matrix "{path}" has no entries')

    def check(self, tensors: tuple[Tensor, ...]) -> None:
        """`ModelFileError` when it knows none of a model's tensors: it belongs to another."""
        if self._entries.keys().isdisjoint(tensor.name for tensor in tensors):
            raise ModelFileError(
                f'the importance matrix "{self._path}" is of another model: no tensor has its name there'
            )

    def weights(self, tensor: Tensor) -> Floats | None:
        """A row of weights for each matrix of the tensor (one for each expert); None when there are none for it.

        `ModelFileError` for the wrong number of weights, and for any that is negative or no finite number.
        """
        entry = self._entries.get(tensor.name)
        if entry is None:
            return None
        row, matrices = tensor.shape[0], math.prod(tensor.shape[2:])
        if entry.length != row * matrices:
            if tensor.name == "token_embd.weight":
                return None  # looked up, not multiplied: what was counted is something else
            raise ModelFileError(
                f'the importance matrix has {entry.length} weights for "{tensor.name}", which needs {row * matrices}'
            )
        offset, number = entry.counts
        if number not in (0, 1, matrices):
            raise ModelFileError(f'the importance matrix has {number} counts for "{tensor.name}"')
        sums = self._read(entry.offset, entry.length).reshape(matrices, row)
        counts = self._read(offset, number) if number else np.array([entry.divisor], np.float32)
        if not all(np.isfinite(numbers).all() and (numbers >= 0).all() for numbers in (sums, counts)):
            raise ModelFileError(
                f'the importance matrix has numbers for "{tensor.name}" that are negative or not finite'
            )
        return _means(sums, counts.reshape(-1, 1))

    def _read(self, offset: int, length: int) -> Floats:
        try:
            with open(self._path, "rb") as file:
                file.seek(offset)
                raw = file.read(length * 4)
        except OSError as error:
            raise ModelFileError(f'cannot read "{self._path}": {error.strerror}') from error
        if len(raw) < length * 4:
            raise ModelFileError(f'"{self._path}" became shorter while it was read')
        return np.frombuffer(raw, "<f4").astype(np.float32)


def _means(sums: Floats, counts: Floats) -> Floats:
    """An expert that was never asked counts the same everywhere."""
    means = np.where(counts > 0, sums / np.where(counts > 0, counts, 1), 1)
    return np.ascontiguousarray(means, np.float32)


def _beginning(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4)
    except OSError as error:
        raise ModelFileError(f'cannot read "{path}": {error.strerror}') from error


def _from_gguf(path: Path) -> dict[str, _Entry]:
    file = gguf.read(path)
    if file.text("general.type") != "imatrix" or file.big_endian:
        raise ModelFileError(f'"{path}" is no importance matrix')
    tensors = {tensor.name: tensor for tensor in file.tensors if tensor.type == "F32"}
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(_SUMS):
            counts = tensors.get(name.removesuffix(_SUMS) + _COUNTS)
            if counts is None:
                raise ModelFileError(f'the importance matrix "{path}" has sums without counts: "{name}"')
            place = (counts.offset, counts.elements)
            found[name.removesuffix(_SUMS)] = _Entry(tensor.offset, tensor.elements, counts=place)
    return found


def _from_list(path: Path) -> dict[str, _Entry]:
    """Entries of: length of the name, the name, number of calls, number of weights, the weights times the calls."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = {}
            for _ in range(_number(file.read(4), path)):
                name = file.read(_within(_number(file.read(4), path), _MAX_NAME, path))
                calls, length = _number(file.read(4), path), _number(file.read(4), path)
                _within(length * 4, size - file.tell(), path)
                found[name.decode(errors="replace")] = _Entry(file.tell(), length, float(max(1, calls)))
                file.seek(length * 4, os.SEEK_CUR)
            return found
    except OSError as error:
        raise ModelFileError(f'cannot read "{path}": {error.strerror}') from error


def _number(raw: bytes, path: Path) -> int:
    """A count: 32 bits, not negative."""
    number: int = struct.unpack("<i", raw)[0] if len(raw) == 4 else -1
    return _within(number, (1 << 31) - 1, path)


def _within(number: int, limit: int, path: Path) -> int:
    if not 0 <= number <= limit:
        raise ModelFileError(f'"{path}" is no importance matrix')
    return number
