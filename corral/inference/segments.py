"""An answer in segments: the engine is asked for as many tokens as are reserved, then for more behind these.

So a request whose answer may become long is admitted before there is room for all that it may say, and parked between
two segments when there is no more. What it has said stands behind its prompt then, as in a prompt of the client's, so
the answer goes on as it would have: nothing is lost, and no token comes twice. Knows pool and pieces; no model.
"""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from corral.engine.base import CompletionRequest, Engine, Finish, Piece
from corral.engine.stops import StopWords
from corral.serving.admission import Pool, Room

log = logging.getLogger(__name__)

SHORT_SEGMENT = 64
"""Tokens of a segment while other requests are served: so soon the pool gets room for those that came before."""


def can_be_parked(request: CompletionRequest) -> bool:
    """Whether an answer goes on as it would have when its tokens are sent back behind the prompt.

    The engine would begin anew with a seed's random numbers and with a grammar, and pictures are not sent as tokens.
    """
    is_repeatable = request.sampling.seed is not None and request.sampling.temperature > 0
    return not (is_repeatable or request.schema is not None or request.grammar or request.media)


class SegmentedEngine:
    """Completions of an engine in segments that `room` has tokens for.

    `prompt_tokens`: an upper bound for the prompt; `num_ctx`: the length at which the engine shifts the context, in
    tokens. A request that has reserved all it may need is left to the engine as it is.
    """

    def __init__(self, engine: Engine, pool: Pool, room: Room, prompt_tokens: int, num_ctx: int) -> None:
        self._engine = engine
        self._pool = pool
        self._room = room
        self._prompt_tokens = prompt_tokens
        self._num_ctx = num_ctx
        self.parked = 0.0
        """Seconds for which it waited between segments."""

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        """As `Engine.complete`."""
        whole = min(self._prompt_tokens + request.max_tokens, self._num_ctx)
        return self._engine.complete(request) if whole <= self._room.tokens else self._in_segments(request)

    async def _in_segments(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        answer = _Answer(request)
        used = self._prompt_tokens
        # What a long prompt has been given too much, since only a bound of it was known, is soon given back.
        is_short = self._pool.is_much(used)
        while True:
            tokens = self._next(answer.left, used, is_short=is_short or self._room.is_shared)
            async with aclosing(self._engine.complete(answer.segment(tokens))) as pieces:
                async for piece in pieces:
                    yield answer.read(piece)
                    if answer.is_complete:
                        return
            used, is_short = answer.tokens, False
            self.parked += await self._room.extend(self._wanted(used, answer.left))

    def _next(self, left: int, used: int, *, is_short: bool) -> int:
        """Tokens that the engine is asked for: as many as are reserved, or a few, so that other requests soon get what
        they need; all, where that is all there may come to be."""
        reserved = self._room.tokens
        if reserved >= min(used + left, self._num_ctx):
            return left
        return max(1, min(left, reserved - used, SHORT_SEGMENT if is_short else reserved))

    def _wanted(self, used: int, left: int) -> int:
        """Tokens to have reserved for the next segment: those that are, as long as they suffice for a short one."""
        most = min(used + left, self._num_ctx)
        wanted = self._pool.share(used, most, held=self._room.tokens)
        suffices = min(most, used + SHORT_SEGMENT) <= self._room.tokens <= wanted
        return self._room.tokens if suffices else wanted


class _Answer:
    """What has been said, and what remains to be asked for."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._written: list[int] = []
        self._tail = ""
        """The end of what was said, where stop words are to be looked for."""
        self._longest = max(map(len, request.sampling.stop), default=0)
        self._stops: StopWords | None = None
        """Looks for a stop word that began in an earlier segment; None: none can have."""
        self._asked = 0
        self._said = 0
        """Tokens that this segment was to have, and has."""
        self._began = 0
        self._total: Finish | None = None
        """Of all segments that have ended."""
        self.is_complete = False

    @property
    def left(self) -> int:
        """Tokens that may still come."""
        return self._request.max_tokens - len(self._written)

    @property
    def tokens(self) -> int:
        """Those of prompt and answer, once the first segment has ended."""
        assert self._total is not None
        return self._total.prompt_tokens + len(self._written)

    def segment(self, tokens: int) -> CompletionRequest:
        """The request for the next segment, of so many tokens."""
        self._asked, self._said, self._began = tokens, 0, time.monotonic_ns()
        if self._total is None:
            return msgspec.structs.replace(self._request, max_tokens=tokens)
        keep = self._request.num_keep if self._request.num_keep >= 0 else self._total.prompt_tokens
        return msgspec.structs.replace(
            self._request, max_tokens=tokens, written=tuple(self._written), num_keep=keep, progress=False
        )

    def read(self, piece: Piece) -> Piece:
        """A piece as it is passed on: without the text that may begin a stop word of which the rest comes in the next
        segment, and with a finish only where the answer has one."""
        self._written += piece.tokens
        self._said += len(piece.tokens)
        if self._longest:
            self._tail = (self._tail + piece.text)[-self._longest :]
        text = piece.text
        if self._stops is not None:
            text = self._stops.feed(text)
            if self._stops.word:
                return msgspec.structs.replace(piece, text=text, finish=self._stopped(self._stops.word))
            if piece.finish is not None or not self._stops.keeps:
                text += self._stops.flush()
                self._stops = None
        if piece.finish is None:
            return piece if text is piece.text else msgspec.structs.replace(piece, text=text)
        if not self._goes_on(piece.finish):
            return msgspec.structs.replace(piece, text=text, finish=self._added(piece.finish))
        self._total = msgspec.structs.replace(self._added(piece.finish), generated_tokens=len(self._written))
        self.is_complete = False
        if self._longest:
            self._stops = StopWords(self._request.sampling.stop)
            kept = len(self._tail) - len(self._stops.feed(self._tail))
            text = text[: len(text) - kept]
        return msgspec.structs.replace(piece, text=text, finish=None)

    def _goes_on(self, finish: Finish) -> bool:
        """Whether a segment has ended because it had all that it was to have, and there may be more."""
        is_full = finish.reason == "length" and finish.generated_tokens >= self._asked
        return is_full and self._said > 0 and self.left > 0

    def _added(self, finish: Finish) -> Finish:
        """The finish of the answer until now. A prompt that was sent again, with what was said, belongs to the answer's
        own time."""
        self.is_complete = True
        before = self._total
        if before is None:
            return finish
        log.debug("%d of %d tokens read again", finish.prompt_tokens - finish.cached_tokens, finish.prompt_tokens)
        return msgspec.structs.replace(
            before,
            reason=finish.reason,
            stop_text=finish.stop_text,
            generated_tokens=before.generated_tokens + finish.generated_tokens,
            drafted_tokens=before.drafted_tokens + finish.drafted_tokens,
            accepted_tokens=before.accepted_tokens + finish.accepted_tokens,
            generation_duration=before.generation_duration + finish.prompt_duration + finish.generation_duration,
        )

    def _stopped(self, word: str) -> Finish:
        """The finish at a stop word that was found here: the engine is not waited for."""
        spent = time.monotonic_ns() - self._began
        return self._added(
            Finish(reason="stop", stop_text=word, generated_tokens=self._said, generation_duration=spent)
        )
