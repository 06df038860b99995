"""The numbers of a stored tensor, a few rows at a time. Knows the types of floats and FP8 with its scales.

FP8 (`F8_E4M3`) has a second tensor of scales: one number for all, for each row, or for each block of rows and columns.
Such tensors travel as 32-bit floats.
"""

from collections.abc import Mapping
from math import prod

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from corral.convert.arrays import E4M3, FLOATS, Array, widened
from corral.convert.safetensors import StoredTensor, shortened
from corral.errors import ModelFileError

_SCALES = ("_scale_inv", "_scale")
"""What the names of scales end in, after the name of what they scale."""


class Source(Struct, frozen=True):
    """A tensor of floats, and its scales if it is FP8."""

    tensor: StoredTensor
    scale: StoredTensor | None = None

    @property
    def dtype(self) -> str:
        """How its numbers travel: a name of `FLOATS`."""
        return "F32" if self.scale is not None else self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    def rows(self, start: int, count: int) -> Array:
        """`count` of what the first dimension counts, from the `start`th."""
        tensor = self.tensor
        stride = prod(tensor.shape[1:]) * tensor.width
        raw = tensor.read(start * stride, count * stride)
        shape = (count, *tensor.shape[1:])
        if self.scale is None:
            return raw.view(FLOATS[tensor.dtype]).reshape(shape)
        return self._scaled(E4M3[raw].reshape(shape), self.scale, start)

    def _scaled(self, numbers: NDArray[np.float32], scale: StoredTensor, start: int) -> Array:
        found = scale.read(0, scale.size).view(FLOATS[scale.dtype])
        scales = widened(found, scale.dtype).reshape(_grid(scale.shape))
        rows, columns = self.shape
        row = np.arange(start, start + len(numbers)) // _block(rows, scales.shape[0])
        column = np.arange(columns) // _block(columns, scales.shape[1])
        numbers *= scales[row][:, column]
        return numbers


def find(tensors: Mapping[str, StoredTensor], name: str) -> Source | None:
    """The tensor of that name with its scales; None when there is none. `ModelFileError` for one of another type."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if tensor.dtype in FLOATS:
        return Source(tensor)
    if tensor.dtype != "F8_E4M3":
        raise ModelFileError(f'unknown data type: {tensor.dtype} of tensor "{shortened(name)}"')
    scale = next((tensors[name + end] for end in _SCALES if name + end in tensors), None)
    if scale is None or scale.dtype not in FLOATS or len(tensor.shape) != 2 or not _fits(tensor, scale):
        raise ModelFileError(f'tensor "{shortened(name)}" is {tensor.dtype} without scales that fit it')
    return Source(tensor, scale)


def is_scale(name: str, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether a tensor is the scales of another."""
    return any(name.endswith(end) and name.removesuffix(end) in tensors for end in _SCALES)


def _fits(tensor: StoredTensor, scale: StoredTensor) -> bool:
    """Whether the scales are a grid over the tensor with blocks of one size, of which the last may be smaller."""
    if len(scale.shape) > 2 or 0 in scale.shape or 0 in tensor.shape:
        return False
    return all(
        parts <= size and -(-size // _block(size, parts)) == parts
        for size, parts in zip(tensor.shape, _grid(scale.shape), strict=True)
    )


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0] if shape else 1, shape[1] if len(shape) > 1 else 1)


def _block(size: int, parts: int) -> int:
    """Neighbours that share a scale: those of the format are powers of two, or all, or one."""
    if parts == 1:
        return size
    block = 1
    while -(-size // block) > parts:
        block *= 2
    return block
