"""What the engine holds back of an answer while it may become a character or a stop word. Knows no connection."""

from collections.abc import Awaitable, Callable, Sequence

from corral.engine.base import CompletionRequest, Finish, Piece
from corral.engine.llama import wire
from corral.engine.llama.characters import TokenText, TokenTexts
from corral.engine.stops import StopWords
from corral.messages import TokenLogprob


class Unsent:
    """The tokens of a completion that llama-server has not reported, or whose text it has not sent yet.

    It leaves out the tokens within a character. It keeps back the text of tokens that may begin a stop word, and drops
    it when the answer ends at its limit.
    """

    def __init__(
        self,
        request: CompletionRequest,
        texts: TokenTexts,
        detokenize: Callable[[Sequence[int]], Awaitable[str]],
    ) -> None:
        self._top = request.top_logprobs
        self._stop = request.sampling.stop
        self._texts = texts
        self._detokenize = detokenize
        self._reported = 0
        self._sent = ""
        """The text of unsent tokens that had to be sent before it was known which tokens write it."""
        self._ids: list[int | None] = []
        self._probabilities: list[wire.Probability | None] = []

    def usual_piece(self, event: wire.Completion) -> Piece | None:
        """The piece of an event that reports one token with its text, while nothing is unsent; takes in the tokens of
        others."""
        count = event.tokens_predicted - self._reported if event.tokens_predicted else len(event.tokens)
        self._reported += count
        if count == 1 == len(event.tokens) and event.content and not self._ids and not event.stop:
            return (
                wire.completion_piece(event, self._top) if self._top is not None else Piece(event.content, event.tokens)
            )
        missing = max(0, count - len(event.tokens))
        self._ids += [None] * missing + [*event.tokens]
        self._probabilities += [None] * (missing + len(event.tokens) - len(event.completion_probabilities))
        self._probabilities += event.completion_probabilities if event.tokens else ()
        return None

    async def piece(self, event: wire.Completion, finish: Finish | None) -> Piece:
        """The text of an event with the tokens that write it, as far as they can be known."""
        text = event.content
        if finish is not None:
            while self._ids and self._ids[-1] is None:  # of a character that was not completed
                self._ids.pop()
                self._probabilities.pop()
            if self._ids and finish.reason == "length" and self._stop:
                text += await self._kept_back()
        if not self._ids:
            return Piece(text, finish=finish)
        if None not in self._ids and self._top is None:
            return self._taken(text, None, finish)
        stop_text = finish.stop_text if finish is not None else ""
        found = await self._texts.matching(self._sent + text + stop_text, self._ids)
        if found is None and None in self._ids and finish is None and self._stop and not self._sent:
            self._sent = text
            return Piece(text)
        if found is None and None in self._ids:
            found = await self._texts.of(self._sent + text + stop_text)
        elif found is None:
            known = [one for one in self._ids if one is not None]
            found = tuple([TokenText(one, (await self._detokenize([one])).encode()) for one in known])
        return self._taken(text, found, finish)

    async def _kept_back(self) -> str:
        """The text that was dropped because it may have begun a stop word."""
        ids = self._ids
        if None not in ids:
            text = await self._detokenize([one for one in ids if one is not None])
            stops = StopWords(self._stop)
            return text if stops.feed(text) != text and not stops.word else ""
        text = await self._texts.beginning(self._stop, ids)
        before = ids[: -len(await self._texts.of(text))] if text else []
        return await self._detokenize([one for one in before if one is not None]) + text

    def _taken(self, text: str, tokens: Sequence[TokenText] | None, finish: Finish | None) -> Piece:
        """A piece with all unsent tokens, which are `tokens` where that is known."""
        ids = tuple(one for one in self._ids if one is not None) if tokens is None else tuple(one.id for one in tokens)
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._top is not None:
            exact = [one.bytes for one in tokens] if tokens is not None and len(tokens) == len(self._ids) else None
            logprobs = tuple(
                wire.unmeasured(exact[place] if exact else b"")
                if item is None
                else wire.token_logprob(item, self._top, exact[place] if exact else None)
                for place, item in enumerate(self._probabilities)
            )
        self._ids, self._probabilities, self._sent = [], [], ""
        return Piece(text, ids, logprobs, finish=finish)


class ChatStops:
    """Stop words in an answer that the engine parses: in its thoughts and in its content."""

    def __init__(self, words: Sequence[str]) -> None:
        self._thinking: StopWords | None = StopWords(words) if words else None
        self._content: StopWords | None = StopWords(words) if words else None

    @property
    def found(self) -> str:
        """The stop word that came; empty: none yet."""
        return next((stops.word for stops in (self._thinking, self._content) if stops is not None and stops.word), "")

    def read(self, piece: Piece) -> Piece:
        """The piece with what has become certain."""
        if self._thinking is None or self._content is None or not (piece.text or piece.thinking):
            return piece
        thinking = self._thinking.feed(piece.thinking)
        if piece.text:
            thinking += self._thinking.flush()
        text = "" if self._thinking.word else self._content.feed(piece.text)
        return Piece(text, logprobs=piece.logprobs, thinking=thinking)

    def end(self) -> Piece:
        """What was kept back until the answer ended."""
        if self._thinking is None or self._content is None:
            return Piece()
        return Piece(self._content.flush(), thinking=self._thinking.flush())
