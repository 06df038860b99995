"""How a tensor of the new file comes from tensors of the checkpoint, slice by slice. Knows no architecture."""

from collections.abc import Callable, Iterator, Sequence
from math import prod

from msgspec import Struct

from corral.convert import arrays
from corral.convert.arrays import Array
from corral.convert.source import Source

SLICE = 4 << 20
"""About how many bytes of a tensor are in memory at once."""


class Change(Struct, frozen=True):
    """What happens to a tensor's numbers on the way: `function` takes and gives `rows` of them, or a multiple.

    `computes` is false for one that only moves numbers, and so takes them in any type; else they come as 32-bit floats.
    """

    function: Callable[[Array], Array]
    rows: int = 1
    computes: bool = False


class Recipe(Struct, frozen=True):
    """A tensor of the new file: `sources` are the names it is made of, each of `shape` with the row length last.

    Several sources, or `stacked`, give a tensor with one more dimension. One that is not `required` is left out when
    the checkpoint has no such tensor.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    change: Change | None = None
    required: bool = True
    stacked: bool = False

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Its shape in the new file, in the file's order: row length first."""
        outer = (len(self.sources),) if self.stacked else ()
        return (*outer, *self.shape)[::-1]

    def kind(self, sources: Sequence[Source]) -> str:
        """The type it gets (spec cli §18): F32 for vectors and a few others, BF16 from BF16, else F16."""
        if len(self.target_shape) == 1 or self.name.endswith(_ALWAYS_F32):
            return "F32"
        return "BF16" if all(source.dtype == "BF16" for source in sources) else "F16"

    def slices(self, sources: Sequence[Source], kind: str) -> Iterator[Array]:
        """Its numbers in that type, in order; `ModelFileError` for some that are not finite."""
        for source in sources:
            for piece in self._pieces(source):
                made, dtype = self._changed(piece, source.dtype)
                found = arrays.cast(made, dtype, kind)
                arrays.check_finite(found, kind, source.tensor.name, piece, source.dtype)
                yield found

    def _pieces(self, source: Source) -> Iterator[Array]:
        unit = self.change.rows if self.change is not None else 1
        row = prod(self.shape[1:]) * arrays.FLOATS[source.dtype].itemsize
        count = max(1, SLICE // (row * unit)) * unit
        for start in range(0, self.shape[0], count):
            yield source.rows(start, min(count, self.shape[0] - start))

    def _changed(self, piece: Array, dtype: str) -> tuple[Array, str]:
        if self.change is None:
            return piece, dtype
        if self.change.computes:
            return self.change.function(arrays.widened(piece, dtype)), "F32"
        return self.change.function(piece), dtype


class Given(Struct, frozen=True):
    """A vector of the new file that was computed from the configuration."""

    name: str
    values: tuple[float, ...]


_ALWAYS_F32 = (".bias", ".ffn_gate_inp.weight", "token_types.weight")


def one_added() -> Change:
    """For norms whose weights are stored as their distance from 1."""
    return Change(lambda array: array + 1, computes=True)


def interleaved(head_width: int) -> Change:
    """For heads whose elements that turn together lie half a head apart, where the engine has them side by side."""

    def function(array: Array) -> Array:
        halves = array.reshape(-1, 2, head_width // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)

    return Change(function, rows=head_width)
