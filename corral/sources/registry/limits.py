"""In what sizes, over how many connections and within what times blobs are fetched and sent. Knows neither."""

from dataclasses import dataclass, field

from corral.sources.registry.http import ANSWER_SECONDS
from corral.sources.registry.ledger import part_bytes
from corral.sources.registry.retry import RetryPolicy

_MIN_SLICE_BYTES = 4 << 20
_MAX_SLICE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """How a blob is fetched and sent. The defaults are for the world; tests and odd networks have others.

    Sizes are in bytes, times in seconds.
    """

    part_bytes: int = 0
    """0: by the blob's size (spec cli §9.2)."""
    slice_bytes: int = 0
    """0: by the blob's size."""
    connections: int = 8
    """At once, for one pull or push: of a large blob, or of several small ones."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """For a slice of a download, a part of an upload, and any other request that may be repeated."""
    stall: float = 30.0
    """The time without `trickle_bytes` after which a connection is given up."""
    silence: float = 300.0
    """The time for which all connections may stall together before the transfer ends."""
    trickle_bytes: int = 16 << 10
    """What has to arrive to count as progress."""
    answer: float = ANSWER_SECONDS
    """For any answer but a blob's."""
    write_bytes: int = 1 << 20
    checkpoint_bytes: int = 64 << 20
    """What may be lost of a transfer when the process is killed, beside what is on its way."""
    checkpoint_seconds: float = 1.0

    def part_size(self, total: int) -> int:
        """How many bytes of a blob of `total` bytes have a ledger of their own, or are sent in one request."""
        return self.part_bytes or part_bytes(total)

    def slice_size(self, total: int) -> int:
        """How many bytes of a blob of `total` bytes are asked for in one request."""
        return self.slice_bytes or min(max(total // 64, _MIN_SLICE_BYTES), _MAX_SLICE_BYTES)

    def connections_for(self, total: int) -> int:
        """How many connections fetch a blob of `total` bytes: one for each slice, as far as there are so many."""
        slices = -(-total // self.slice_size(total))
        return min(max(slices, 1), self.connections)
