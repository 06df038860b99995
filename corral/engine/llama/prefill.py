"""How a long prompt is read: in parts, so that other prompts get their turn in between. Knows no wire format.

llama-server fills a batch from its slots in their order. While it reads a long prompt, a short one in a slot behind it
waits until that is read whole, which may take minutes. A part that was read stays in its slot's cache, so the next
request with the same beginning goes on from there; between two parts nobody stands in front.

A part that is shorter than what a slot has in its cache would cut the rest of that off. So only a prompt that begins
like none before it is read in parts: of it, nothing can be in the cache.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

FIRST = 512
"""Tokens of the first part; a prompt that is not much longer is read at once."""

LEAST = 256
"""Tokens of the smallest part, which the engine reads as fast as larger ones."""

SECONDS = 1.0
"""How long a part is to take, by the speed of the one before it."""

BYTES_PER_TOKEN = 3
"""Texts have more, as a rule: by this a prompt is taken for short without being counted."""

BEGINNING = 1024
"""Characters in which two prompts have to be the same for one to be of use to the other."""

REMEMBERED = 256
"""Beginnings that are remembered, more than a worker's cache has prompts."""


class Reading(Struct, frozen=True):
    """What reading came to: tokens that were computed, not found in the cache, and milliseconds."""

    tokens: int = 0
    milliseconds: float = 0.0


class Beginnings:
    """How the prompts began that an engine was given."""

    def __init__(self) -> None:
        self._seen: deque[str] = deque(maxlen=REMEMBERED)

    def is_new(self, text: str) -> bool:
        """Whether no prompt before was like this one, or the beginning of it; it is remembered unless it is empty."""
        is_new = not any(text.startswith(beginning) for beginning in self._seen)
        if text and text[:BEGINNING] not in self._seen:
            self._seen.append(text[:BEGINNING])
        return is_new


def is_long(text: str) -> bool:
    """Whether a text may be worth reading in parts."""
    return len(text.encode()) > BYTES_PER_TOKEN * FIRST


async def read_ahead(tokens: Sequence[int], read: Callable[[Sequence[int]], Awaitable[Reading]]) -> Reading:
    """Has `read` take in longer and longer beginnings, until what is left is no more than one and a half parts.

    Where a part took more than was new in it, the engine has not kept the one before, and the rest is left whole.
    """
    done, size, whole = 0, FIRST, Reading()
    while len(tokens) - done > size + size // 2:
        part = await read(tokens[: done + size])
        whole = Reading(whole.tokens + part.tokens, whole.milliseconds + part.milliseconds)
        if part.tokens > size:
            break
        done += size
        if part.milliseconds > 0:
            size = max(LEAST, int(part.tokens / part.milliseconds * 1000 * SECONDS))
    return whole
