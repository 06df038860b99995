"""The whole answer as the fold of its stream: there is no second way to make one. Knows no dialect."""

from collections.abc import AsyncIterator

from msgspec import structs

from corral.messages import Chunk, TokenLogprob, ToolCall


async def fold(first: Chunk, rest: AsyncIterator[Chunk]) -> Chunk:
    """One chunk that says what all of them say: texts, calls and log probabilities joined, what was cut
    and is not enforced from the first, the rest from the last."""
    content, thinking = [first.content], [first.thinking]
    calls: list[ToolCall] = [*first.tool_calls]
    logprobs: list[TokenLogprob] = [*first.logprobs]
    last = first
    async for chunk in rest:
        content.append(chunk.content)
        thinking.append(chunk.thinking)
        calls += chunk.tool_calls
        logprobs += chunk.logprobs
        last = chunk
    return structs.replace(
        last,
        content="".join(content),
        thinking="".join(thinking),
        tool_calls=tuple(calls),
        logprobs=tuple(logprobs),
        truncated_tokens=first.truncated_tokens,
        unenforced=first.unenforced,
    )
