"""Answers for a dialect to write: several at once, chunk by chunk as they come, or whole. Knows no dialect."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeAlias
from urllib.parse import quote

from starlette.responses import Response

from corral import inference
from corral.inference import Runtime
from corral.messages import ChatRequest, Chunk, GenerateRequest
from corral.server.http.folding import fold_all

Numbered: TypeAlias = AsyncGenerator[tuple[int, Chunk], None]
"""Chunks, each with the number of the request it answers."""

_AHEAD = 2
"""Chunks that an answer may be ahead of their reader."""


def describe(response: Response, truncated_tokens: int, unenforced: Sequence[str] = ()) -> None:
    """Headers that say how many tokens did not fit into the context, and which parts of a schema are not enforced."""
    if truncated_tokens:
        response.headers["x-corral-truncated-tokens"] = str(truncated_tokens)
    if unenforced:
        response.headers["x-corral-unenforced"] = quote(", ".join(unenforced)[:1000], safe="#/$, ")


async def answers(runtime: Runtime, requests: Sequence[ChatRequest | GenerateRequest]) -> Numbered:
    """The chunks of all answers; the first error ends them all. Closing the iterator cancels what is under way."""
    if len(requests) == 1:
        async with inference.answer(runtime, requests[0]) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    queue: asyncio.Queue[tuple[int, Chunk] | asyncio.Task[None]] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD * len(requests))

    async def run(number: int, request: ChatRequest | GenerateRequest) -> None:
        async with inference.answer(runtime, request) as chunks:
            async for chunk in chunks:
                await room.acquire()
                queue.put_nowait((number, chunk))

    tasks = [asyncio.ensure_future(run(number, request)) for number, request in enumerate(requests)]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, asyncio.Task):
                item.result()
                running -= 1
            else:
                room.release()
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def folded(source: Numbered) -> list[Chunk]:
    """The whole answers, in the order of their numbers."""
    chunks: dict[int, list[Chunk]] = {}
    async with aclosing(source):
        async for number, chunk in source:
            chunks.setdefault(number, []).append(chunk)
    return [fold_all(chunks[number]) for number in sorted(chunks)]
