"""How patiently and in what pieces blobs are fetched and sent. Knows neither."""

from dataclasses import dataclass

from corral.sources.registry.http import ANSWER_SECONDS

_MIN_SLICE_BYTES = 4 << 20
_MAX_SLICE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a blob is fetched and sent. The defaults are for the world; tests and odd networks have others."""

    part_bytes: int = 0
    """0: by the blob's size (spec cli §9.2)."""
    slice_bytes: int = 0
    """0: by the blob's size."""
    connections: int = 8
    """At once, for one pull: of a large blob, or of several small ones."""
    attempts: int = 6
    """How often a slice is tried again without anything to show for it."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled before each further one."""
    stall: float = 30.0
    """Seconds without `trickle_bytes` after which a connection is given up."""
    answer: float = ANSWER_SECONDS
    """Seconds for any answer but a blob's."""
    trickle_bytes: int = 16 << 10
    silence: float = 300.0
    """Seconds for which all connections may stall together before the transfer ends."""
    write_bytes: int = 1 << 20
    checkpoint_bytes: int = 64 << 20
    """What may be lost of a transfer when the process is killed, beside what is on its way."""
    checkpoint_seconds: float = 1.0

    def slice_size(self, total: int) -> int:
        """How many bytes of a blob of `total` bytes are asked for in one request."""
        return self.slice_bytes or min(max(total // 64, _MIN_SLICE_BYTES), _MAX_SLICE_BYTES)

    def connections_for(self, total: int) -> int:
        """How many connections fetch a blob of `total` bytes: one for each slice, as far as there are so many."""
        slices = -(-total // self.slice_size(total))
        return min(max(slices, 1), self.connections)
