"""Many texts of one request, in parts that take turns with those of other requests. Knows no engine's methods."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from corral.engine.load_options import batches
from corral.serving.runner import Runner

PART_TEXTS = 64
"""Most texts of a part, so that short ones cost little more than one request to the engine for all would."""


class _Sized(Protocol):
    @property
    def most_tokens(self) -> int: ...


T = TypeVar("T", bound=_Sized)


def in_parts(texts: Sequence[T], runner: Runner) -> Iterator[list[T]]:
    """The texts in parts: one for each slot, or more where all of them fit into one batch."""
    _, batch = batches(runner.spec)
    part: list[T] = []
    tokens = 0
    for text in texts:
        tokens += text.most_tokens
        if len(part) >= runner.pool.slots and (tokens > batch or len(part) >= PART_TEXTS):
            yield part
            part, tokens = [], text.most_tokens
        part.append(text)
    yield part
