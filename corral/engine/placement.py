"""Which parts of a model lie on which device, as values: what is planned before a load, and what was said after it.

Knows no engine and no machine. Bytes throughout.
"""

from collections.abc import Sequence

from msgspec import Struct


class Parts(Struct, frozen=True):
    """What a model's weights consist of, as far as it matters where they lie."""

    layers: tuple[int, ...]
    """Bytes of each layer but its experts."""
    experts: tuple[int, ...]
    """Bytes of the experts of each layer; 0 where it has none."""
    output: int
    """Bytes of what makes words of the last layer's result; it counts as one layer more, as the engine counts."""
    beside: int = 0
    """Bytes of projectors and adapters, which lie on the first device used."""
    per_token: int = 0
    """Bytes that each token of a batch takes while it is computed."""

    @property
    def count(self) -> int:
        """Layers, the output among them."""
        return len(self.layers) + 1

    @property
    def weights(self) -> int:
        return sum(self.layers) + sum(self.experts) + self.output + self.beside


class Bytes(Struct, frozen=True):
    """What lies on one device."""

    weights: int = 0
    cache: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute


class Share(Struct, frozen=True):
    """What one device gets. `index`: its place among all that the engine lists."""

    device: str
    index: int
    layers: int
    bytes: Bytes


class Placement(Struct, frozen=True, kw_only=True):
    """Where a model lies. Without shares all of it is in main memory, and no device is used."""

    of: int
    """Layers there are, the output among them."""
    shares: tuple[Share, ...] = ()
    """In the order in which the layers follow each other."""
    cpu_moe: int = 0
    """Layers, from the first, whose experts lie in main memory."""
    host: int = 0
    """Bytes of weights and cache that lie in main memory though they could be on a device."""
    devices: int = 0
    """How many devices the engine lists."""
    short: tuple[str, ...] = ()
    """Devices that have less free memory than the estimate takes: a number of layers was asked for."""
    reason: str = ""
    """Why it is so, as a sentence for a person."""

    @property
    def layers(self) -> int:
        """Those on devices."""
        return sum(share.layers for share in self.shares)

    @property
    def is_whole(self) -> bool:
        return self.layers == self.of and not self.cpu_moe

    @property
    def split(self) -> tuple[int, ...]:
        """Layers of each of all devices of the engine, in its order."""
        found = [0] * self.devices
        for share in self.shares:
            found[share.index] = share.layers
        return tuple(found)


class Ratios(Struct, frozen=True):
    """By how much the engine's own figures after a load differed from the estimate before it, for one model."""

    weights: float = 1.0
    cache: float = 1.0
    compute: float = 1.0


LEAST, MOST = 0.25, 4.0
"""What a ratio is cut to: an engine that says nonsense must not make a model seem to need nothing, or everything."""


def compared(estimated: Sequence[Share], said: dict[str, Bytes], before: Ratios) -> Ratios:
    """What `said`, by device, makes of the ratios that the estimate was made with; `before` where nothing is said."""
    found = [(share.bytes, said[share.device]) for share in estimated if share.device in said]

    def ratio(name: str, known: float) -> float:
        guess = sum(getattr(one, name) for one, _ in found)
        is_said = sum(getattr(other, name) for _, other in found)
        return min(MOST, max(LEAST, known * is_said / guess)) if guess > 0 and is_said > 0 else known

    return Ratios(ratio("weights", before.weights), ratio("cache", before.cache), ratio("compute", before.compute))
