"""Chunked prefill: a long prompt is computed in parts, so that other prompts get their turn in between.

llama-server fills a batch from its slots in their order. While it computes a long prompt, a short one in a slot behind
it waits until the long one is through, which may take minutes. A part that was computed stays in its slot's cache, so
the next request with the same prefix goes on from there; between two parts the other slots get their turn.

A part that is shorter than what a slot has in its cache would cut the rest of that off. So only a prompt with a prefix
that was never seen before is computed in parts: of it, nothing can be in the cache. Knows no wire format.

Each part is sent with all tokens before it, as the engine's API knows no prompt that goes on in a slot, and a text in
their place would have to be tokenized as often. Behind 50,000 tokens that is 300 kB and some 20 ms of processor time
beside a second of computing (`benchmarks/prefill_parts.py`), so nothing is done to have it cheaper.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from msgspec import Struct

from corral.messages import AnswerProgress

FIRST_CHUNK = 512
"""Tokens of the first part; a prompt that is not much longer is computed at once."""

MIN_CHUNK = 256
"""Tokens of the smallest part, which the engine computes as fast as larger ones."""

CHUNK_SECONDS = 1.0
"""How long a part is to take, by the speed of the one before it."""

BYTES_PER_TOKEN = 3
"""Texts have more, as a rule: a prompt with fewer is taken for short without being tokenized."""

PREFIX = 1024
"""Characters in which two prompts have to be the same for the cache of one to be of use to the other."""

REMEMBERED = 256
"""Prefixes that are remembered, more than a worker's cache has prompts."""


class PrefillStats(Struct, frozen=True):
    """What a prefill took: tokens that were computed, not found in the cache, and milliseconds."""

    tokens: int = 0
    milliseconds: float = 0.0
    reached: int = 0
    """Tokens of the prompt that have been read now, computed or not, of `total`."""
    total: int = 0

    @property
    def progress(self) -> AnswerProgress:
        """How far the whole prompt has been read."""
        return AnswerProgress("reading", self.reached, self.total, max(0, self.reached - self.tokens))


class SeenPrefixes:
    """The prefixes of the latest prompts that an engine was given."""

    def __init__(self) -> None:
        self._seen: deque[str] = deque(maxlen=REMEMBERED)

    def is_new(self, text: str) -> bool:
        """Whether no earlier prompt shares its prefix with this one; remembers this one unless it is empty."""
        is_new = not any(text.startswith(prefix) for prefix in self._seen)
        if text and text[:PREFIX] not in self._seen:
            self._seen.append(text[:PREFIX])
        return is_new


def is_long(text: str) -> bool:
    """Whether a text may be worth a prefill in parts."""
    return len(text.encode()) > BYTES_PER_TOKEN * FIRST_CHUNK


async def chunked_prefill(
    tokens: Sequence[int], compute: Callable[[Sequence[int]], Awaitable[PrefillStats]]
) -> AsyncGenerator[PrefillStats, None]:
    """Has `compute` take longer and longer prefixes, until what is left is no more than one and a half parts.

    Gives what all parts so far took: before the first one, and after each. Where a part took more than was new in it,
    the engine has not kept the one before, and the rest is left whole.
    """
    size, so_far = FIRST_CHUNK, PrefillStats(total=len(tokens))
    while len(tokens) - so_far.reached > size + size // 2:
        if not so_far.reached:
            yield so_far
        reached = so_far.reached + size
        part = await compute(tokens[:reached])
        so_far = PrefillStats(
            so_far.tokens + part.tokens, so_far.milliseconds + part.milliseconds, reached, so_far.total
        )
        yield so_far
        if part.tokens > size:
            break
        if part.milliseconds > 0:
            size = max(MIN_CHUNK, int(part.tokens / part.milliseconds * 1000 * CHUNK_SECONDS))
