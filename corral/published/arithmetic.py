"""The numbers of a derived file's tensors: recipes carried out. For the child process that writes them; loads numpy.

A tensor is read whole: those that are computed are parts of encoders, some hundred megabytes at most.
"""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from corral.errors import ModelFileError
from corral.gguf import Tensor
from corral.published.recipe import HalvesInterleaved, Joined, Kept, PatchSlice, Recipe, Resampled, Widened, Zeros

Numbers = NDArray[np.float32]
Raw = NDArray[np.uint8]


def computed(recipe: Recipe, file: BinaryIO) -> memoryview:
    """The bytes of a tensor, out of the published file; `ModelFileError` for a type that cannot be calculated with."""
    raw = memoryview(np.ascontiguousarray(_made(recipe, file)).data).cast("B")
    if len(raw) != recipe.tensor.size:
        raise ModelFileError(f'tensor "{recipe.name}" came to {len(raw)} bytes instead of {recipe.tensor.size}')
    return raw


def _made(recipe: Recipe, file: BinaryIO) -> NDArray[Any]:
    sources = recipe.sources
    match how := recipe.how:
        case Kept():
            return _raw(file, sources[0])
        case Widened():
            return _numbers(file, sources[0])
        case Joined():
            if recipe.tensor.type == "F32":
                return np.concatenate([_numbers(file, source).reshape(-1) for source in sources])
            return np.concatenate([_raw(file, source) for source in sources])
        case HalvesInterleaved(heads):
            return _halves_interleaved(_rows(file, sources[0]), heads)
        case PatchSlice(number):
            return _patch_slice(_numbers(file, sources[0]), sources[0].shape, number)
        case Resampled():
            return _resampled(_numbers(file, sources[0]), how)
        case Zeros():
            return np.zeros(recipe.tensor.size, np.uint8)


def _halves_interleaved(rows: Raw, heads: int) -> Raw:
    """(heads × d, bytes): row 2i+s of a head is row s·d/2+i of it before."""
    count, size = rows.shape
    return rows.reshape(heads, 2, count // heads // 2, size).swapaxes(1, 2).reshape(count, size)


def _patch_slice(numbers: Numbers, shape: Sequence[int], number: int) -> Numbers:
    """(out × 3, 2, height, width) → (out, 3, height, width); the packed index is output channel × 3 + colour."""
    width, height, count, packed = shape
    return numbers.reshape(packed // 3, 3, count, height, width)[:, :, number]


def _resampled(numbers: Numbers, how: Resampled) -> Numbers:
    """(side², width) → (new_side², width), or (width, side²) where the places are columns."""
    places = how.side * how.side
    rows = numbers.reshape(places, -1) if how.is_by_row else numbers.reshape(-1, places).T
    square = rows.reshape(how.side, how.side, -1)
    if how.side == how.new_side:
        return np.ascontiguousarray(rows)
    steps = max(how.new_side - 1, 1)
    at = np.arange(how.new_side, dtype=np.float32) * (np.float32(how.side - 1) / np.float32(steps))
    first = np.minimum(at.astype(np.int64), how.side - 1)
    second = np.minimum(first + 1, how.side - 1)
    share = (at - first).astype(np.float32)
    across = square[:, first] * (1 - share)[None, :, None] + square[:, second] * share[None, :, None]
    down = across[first] * (1 - share)[:, None, None] + across[second] * share[:, None, None]
    return np.asarray(down, np.float32).reshape(how.new_side * how.new_side, -1)


def _raw(file: BinaryIO, tensor: Tensor) -> Raw:
    file.seek(tensor.offset)
    content = file.read(tensor.size)
    if len(content) != tensor.size:
        raise ModelFileError(f'the file ends within tensor "{tensor.name}"')
    return np.frombuffer(content, np.uint8)


def _rows(file: BinaryIO, tensor: Tensor) -> Raw:
    """(rows, bytes of a row), whatever the type."""
    return _raw(file, tensor).reshape(tensor.elements // tensor.shape[0], -1)


def _numbers(file: BinaryIO, tensor: Tensor) -> Numbers:
    """All numbers of a tensor, one row after the other, as F32."""
    try:
        kind = GGMLQuantizationType[tensor.type]
        return np.asarray(quants.dequantize(_rows(file, tensor), kind), np.float32).reshape(-1)
    except (KeyError, NotImplementedError, ValueError) as error:
        raise ModelFileError(f'tensor "{tensor.name}" has the type {tensor.type}, which is not read here') from error
