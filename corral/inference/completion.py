"""One completion, read as it comes; a constrained one may think first, without the constraint (spec api §9).

Knows engine, reader and constraint; no model, no scheduler.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeAlias

import msgspec

from corral.engine.base import CompletionRequest, Piece
from corral.inference import constraint
from corral.inference.reading import Reader
from corral.messages import Chunk

Step: TypeAlias = tuple[Piece, Sequence[Chunk]]
"""A piece and what was read from it."""


class Completes(Protocol):
    """What can complete a prompt, as an engine does."""

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        """As `Engine.complete`."""
        ...


async def complete(engine: Completes, request: CompletionRequest, reader: Reader) -> AsyncGenerator[Step, None]:
    """The steps of an answer; the last piece has a `finish`, and metrics are those of the last pass.

    A grammar would keep a model from thinking. So with a reader that looks for thoughts the first pass runs free; where
    content begins, or would have to, it is cut off, and a second pass goes on from there under the constraint.
    """
    if request.schema is not None and reader.reads_thoughts and isinstance(request.prompt, str):
        async with aclosing(
            _thoughts(engine, msgspec.structs.replace(request, schema=None, grammar=""), reader)
        ) as thoughts:
            async for piece, chunks in thoughts:
                yield piece, chunks
                if piece.finish is not None:
                    return
        request = msgspec.structs.replace(request, prompt=request.prompt + reader.thinking_prefix)
        reader = Reader(None)
    text: list[str] = []
    async with aclosing(engine.complete(request)) as pieces:
        async for piece in pieces:
            text.append(piece.text)
            chunks = reader.read(piece)
            if piece.finish is not None:
                await constraint.verify_answer(request.schema, "".join(text), request.grammar)
                chunks = [*chunks, *reader.end()]
            yield piece, chunks


async def _thoughts(engine: Completes, request: CompletionRequest, reader: Reader) -> AsyncGenerator[Step, None]:
    """An unconstrained answer up to its content, which `reader.thinking_prefix` leads up to afterwards.

    Only an answer that was used up by thinking, or came to a tool call, ends here with a `finish`.
    """
    has_called = False
    async with aclosing(engine.complete(request)) as pieces:
        async for piece in pieces:
            chunks = [*reader.read(piece)]
            if piece.finish is not None:
                chunks += reader.end()
            before_content = [chunk for chunk in chunks if not chunk.content]
            has_called = has_called or any(chunk.tool_calls for chunk in before_content)
            stops = piece.finish is not None and piece.finish.reason == "stop" and not has_called
            if len(before_content) < len(chunks) or stops:
                reader.fix_thinking_prefix("".join(chunk.content for chunk in chunks))
                yield Piece(), before_content
                return
            yield piece, before_content
