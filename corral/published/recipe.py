"""How a tensor of a derived file comes from those of the published one, as values. `arithmetic` carries them out."""

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from corral.errors import ModelFileError
from corral.gguf import Tensor
from corral.gguf.types import TENSOR_TYPES
from corral.gguf.writer import new_tensor


class Kept(Struct, frozen=True):
    """The source's bytes as they are. The shape may be another one of as many elements."""


class Widened(Struct, frozen=True):
    """The source's numbers as F32, exactly."""


class Joined(Struct, frozen=True):
    """The rows of the sources one after the other: as they are, or as F32 where the target is of that type."""


class HalvesInterleaved(Struct, frozen=True):
    """Rows moved whole, of each of `heads` heads by itself: first, first of the second half, second, …"""

    heads: int


class PatchSlice(Struct, frozen=True):
    """One of two convolutions that lie in one tensor, shape [width, height, 2, channels × out], as F32."""

    number: int


class Resampled(Struct, frozen=True):
    """Rows for a square of `new_side` × `new_side` places, as F32, between those for a square of `side` × `side`.

    Linear in both directions, corner on corner. `is_by_row`: each row of the source is one place, else each column.
    """

    side: int
    new_side: int
    is_by_row: bool


class Zeros(Struct, frozen=True):
    """All elements 0, without a source."""


How: TypeAlias = Kept | Widened | Joined | HalvesInterleaved | PatchSlice | Resampled | Zeros


class Recipe(Struct, frozen=True):
    """A tensor to be written, of which name, type, shape and size count, and what it is made of."""

    tensor: Tensor
    sources: tuple[Tensor, ...]
    """Of the published file; each may be the beginning or a row of one there."""
    how: How = Kept()

    @property
    def name(self) -> str:
        return self.tensor.name


def kept(source: Tensor, name: str = "", shape: tuple[int, ...] = ()) -> Recipe:
    """The tensor as it is, perhaps with another name or shape."""
    return Recipe(new_tensor(name or source.name, source.type, shape or source.shape), (source,))


def widened(source: Tensor, name: str = "") -> Recipe:
    """The tensor as F32; what is F32 already stays as it is."""
    if source.type == "F32":
        return kept(source, name)
    return Recipe(new_tensor(name or source.name, "F32", source.shape), (source,), Widened())


def joined(sources: Sequence[Tensor], name: str) -> Recipe:
    """Matrices, or vectors, one below the other: as they are where all are of one type, else as F32."""
    first = sources[0]
    if any(source.shape[:-1] != first.shape[:-1] or len(source.shape) != len(first.shape) for source in sources):
        shapes = " and ".join(str(list(source.shape)) for source in sources)
        raise ModelFileError(f'tensors for "{name}" have the shapes {shapes}, which cannot be joined')
    shape = (*first.shape[:-1], sum(source.shape[-1] for source in sources))
    kinds = {source.type for source in sources}
    return Recipe(new_tensor(name, kinds.pop() if len(kinds) == 1 else "F32", shape), tuple(sources), Joined())


def patch_slices(source: Tensor, first: str, second: str) -> tuple[Recipe, Recipe]:
    """The two convolutions in one tensor of the shape [width, height, 2, 3 × out], each with a name."""
    if len(source.shape) != 4 or source.shape[2] != 2 or source.shape[3] % 3:
        raise ModelFileError(f'tensor "{source.name}" has the shape {list(source.shape)}, not two convolutions')
    shape = (source.shape[0], source.shape[1], 3, source.shape[3] // 3)
    one, other = (
        Recipe(new_tensor(name, "F32", shape), (source,), PatchSlice(number))
        for number, name in enumerate((first, second))
    )
    return one, other


def first_rows(source: Tensor, count: int) -> Tensor:
    """The beginning of a matrix, as a source: its first `count` rows, which it must have."""
    row = source.shape[0]
    if len(source.shape) != 2 or not 0 < count <= source.shape[1]:
        raise ModelFileError(f'tensor "{source.name}" has the shape {list(source.shape)}, not {count} rows or more')
    size = row // _block(source) * _block_bytes(source) * count
    return Tensor(source.name, source.type, (row, count), source.offset, size)


def row_of(source: Tensor, number: int) -> Tensor:
    """One row of a matrix, counted from 0, as a source."""
    if len(source.shape) != 2 or not 0 <= number < source.shape[1]:
        raise ModelFileError(f'tensor "{source.name}" has the shape {list(source.shape)}: it has no row {number}')
    size = source.shape[0] // _block(source) * _block_bytes(source)
    return Tensor(source.name, source.type, (source.shape[0],), source.offset + number * size, size)


def _block(tensor: Tensor) -> int:
    return _KINDS[tensor.type].block


def _block_bytes(tensor: Tensor) -> int:
    return _KINDS[tensor.type].block_bytes


_KINDS = {kind.name: kind for kind in TENSOR_TYPES.values()}
