"""The whole answer as the fold of its stream: there is no second way to make one. Knows no dialect."""

from collections.abc import AsyncIterator, Sequence

from msgspec import structs

from corral.messages import Chunk


async def fold(first: Chunk, rest: AsyncIterator[Chunk]) -> Chunk:
    """One chunk that says what all of them say."""
    return fold_all([first, *[chunk async for chunk in rest]])


def fold_all(chunks: Sequence[Chunk]) -> Chunk:
    """Texts, calls and log probabilities joined, what was cut and is not enforced from the first, the rest from the
    last."""
    first, last = chunks[0], chunks[-1]
    return structs.replace(
        last,
        content="".join([chunk.content for chunk in chunks]),
        thinking="".join([chunk.thinking for chunk in chunks]),
        tool_calls=tuple([call for chunk in chunks for call in chunk.tool_calls]),
        logprobs=tuple([item for chunk in chunks for item in chunk.logprobs]),
        truncated_tokens=first.truncated_tokens,
        unenforced=first.unenforced,
    )
