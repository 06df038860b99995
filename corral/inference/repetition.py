"""An answer that goes round in circles: finds it, and ends it.

Small models fall into saying the same phrase over and over, which nothing but the limit of tokens would end. Only an
exact repetition counts: the last tokens are one stretch of tokens said again and again. Knows engine and pieces; not
which answers are to be watched (`plan.py`).
"""

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import TypeAlias

from corral.engine.base import CompletionRequest, Engine, EngineChat, Finish, Piece

LONGEST_PERIOD = 200
"""Most tokens of a stretch that is said again and again."""

LEAST_REPEATS = 8
LEAST_TOKENS = 400
"""How often it must have been said, and how many tokens all of that must be."""

CHECK_EVERY = 100
"""Tokens between two looks at the end of an answer, each of which takes a fraction of a millisecond."""

Complete: TypeAlias = Callable[[CompletionRequest], AsyncGenerator[Piece, None]]

WARNING = "answer_repeats_itself"
"""The kind of warning, as metrics and log have it."""


class RepetitionDetector:
    """Finds out whether a sequence has come to repeat one stretch of itself, given its tokens as they come.

    A token may be anything that can be compared. A token takes the same small time on average, however long the
    sequence is.
    """

    def __init__(self) -> None:
        self._tail: deque[Hashable] = deque(maxlen=LONGEST_PERIOD * LEAST_REPEATS)
        self._unchecked = 0

    def add(self, *tokens: Hashable) -> bool:
        """Whether the sequence with these tokens is known to repeat itself, at most `CHECK_EVERY` tokens late, or as
        many more as came at once."""
        self._tail.extend(tokens)
        self._unchecked += len(tokens)
        if self._unchecked < CHECK_EVERY or len(self._tail) < LEAST_TOKENS:
            return False
        self._unchecked = 0
        return self.period > 0

    @property
    def period(self) -> int:
        """Tokens of the shortest stretch that the sequence ends in enough repetitions of; 0: it ends in none.

        Read from its end, the tail's longest border (a beginning that is an end as well) gives the shortest period of
        each of its beginnings, in one pass over it (Knuth, Morris and Pratt).
        """
        backwards = list(reversed(self._tail))
        borders = [0] * len(backwards)
        border = 0
        for place in range(1, len(backwards)):
            while border and backwards[place] != backwards[border]:
                border = borders[border - 1]
            if backwards[place] == backwards[border]:
                border += 1
            borders[place] = border
            length = place + 1
            period = length - border
            if length >= LEAST_TOKENS and period <= LONGEST_PERIOD and length >= LEAST_REPEATS * period:
                return period
        return 0


class WatchedEngine:
    """Answers of an engine that end with the reason `length` when they repeat themselves.

    An answer under a schema is not watched: a list of equal things may be what it has to be.
    """

    def __init__(self, engine: Engine, complete: Complete | None = None) -> None:
        """`complete`: what completes prompts in the engine's place."""
        self._engine = engine
        self._complete = complete or engine.complete
        self.warnings: list[str] = []
        """`WARNING` once an answer was ended."""

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        """As `Engine.complete`."""
        pieces = self._complete(request)
        return pieces if request.schema is not None else self._watched(pieces, request.prompt)

    def chat(self, request: EngineChat) -> AsyncGenerator[Piece, None]:
        """As `Engine.chat`."""
        pieces = self._engine.chat(request)
        return pieces if request.schema is not None else self._watched(pieces, request.prompt)

    async def _watched(
        self, pieces: AsyncGenerator[Piece, None], prompt: str | tuple[int, ...]
    ) -> AsyncGenerator[Piece, None]:
        """The pieces, up to where they repeat themselves. The engine's figures come with its last piece; where that is
        not waited for they are counted here, without what was found in the prompt cache."""
        detector = RepetitionDetector()
        began, first, said = time.monotonic_ns(), 0, 0
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
                if piece.finish is not None:
                    return
                if piece.progress is not None:
                    continue
                first = first or time.monotonic_ns()
                tokens = piece.tokens or _unknown_tokens(piece)
                said += len(tokens)
                if detector.add(*tokens):
                    break
            else:
                return
        ended = time.monotonic_ns()
        self.warnings.append(WARNING)
        if isinstance(prompt, str):
            prompt = tuple(await self._engine.tokenize(prompt, add_special=True)) if prompt else ()
        yield Piece(
            finish=Finish(
                reason="length",
                prompt_tokens=len(prompt),
                prompt_duration=first - began,
                generated_tokens=said,
                generation_duration=ended - first,
            )
        )


def _unknown_tokens(piece: Piece) -> tuple[Hashable, ...]:
    """Those of an engine that parses an answer, which gives none: each of its pieces is one as a rule."""
    return ((piece.thinking, piece.text),) if piece.text or piece.thinking else ()
