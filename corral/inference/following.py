"""An answer with what happens before it begins: waiting, loading, reading the prompt. Knows no model and no dialect."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

from corral.messages import AnswerProgress, Chunk
from corral.serving.place import Place

INTERVAL = 0.1
"""Seconds between two chunks of progress, at least."""


async def followed(
    answer: AbstractAsyncContextManager[AsyncGenerator[Chunk, None]], place: Place
) -> AsyncGenerator[Chunk, None]:
    """The chunks of an answer that is entered here, with chunks of progress before its first one.

    Those of waiting and loading are made of what `place` shows; those of reading come with the answer. What is said of
    the prompt after the answer has begun is left out. Errors of entering come with the first chunk.
    """
    async with contextlib.AsyncExitStack() as block:

        async def entered() -> tuple[AsyncGenerator[Chunk, None], Chunk]:
            chunks = await block.enter_async_context(answer)
            return chunks, await anext(chunks)

        entering = asyncio.ensure_future(entered())
        try:
            seen: AnswerProgress | None = None
            while not (await asyncio.wait({entering}, timeout=INTERVAL))[0]:
                before, seen = seen, place.seen()
                if seen is not None and seen != before:
                    yield Chunk(progress=seen)
        finally:
            if not entering.done():
                entering.cancel()
                await asyncio.wait({entering})
        chunks, first = entering.result()
        async with aclosing(_thinned(first, chunks)) as thinned:
            async for chunk in thinned:
                yield chunk


async def _thinned(first: Chunk, rest: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """Not more than one chunk of progress in `INTERVAL`, but always the one of a prompt that is read to its end."""
    chunk, said, has_begun = first, -INTERVAL, False
    while True:
        if chunk.progress is None:
            has_begun = True
            yield chunk
        elif not has_begun:
            now = time.monotonic()
            if now - said >= INTERVAL or chunk.progress.completed >= chunk.progress.total:
                said = now
                yield chunk
        try:
            chunk = await anext(rest)
        except StopAsyncIteration:
            return
