"""A streamed answer of another server, event by event: what it says, and what is to be believed of its counts."""

import logging
import time
from typing import Any, Protocol

import msgspec

from corral.engine.base import Finish, Piece
from corral.errors import UpstreamError
from corral.messages import TokenLogprob, ToolCall
from corral.upstreams import wire

log = logging.getLogger(__name__)

MAX_CALLS = 256
"""Calls of tools in one answer."""

MAX_NAME = 1024
"""Letters of a tool's name."""

MAX_PIECES = 1 << 20
"""Pieces of text in an answer whose length was left open."""

HIDDEN_TOKENS = 1 << 20
"""Tokens that an answer may have beside those that are seen: some servers keep thoughts to themselves."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is held against: the bytes of the request, the tokens it may have (0: left open), the alternatives
    to each token (None: no log probabilities), and what the server calls the model."""

    size: int
    max_tokens: int = 0
    top_logprobs: int | None = None
    model: str = ""


class Answer(Protocol):
    """An answer that is being read."""

    thinking_tokens: int
    is_over: bool
    """Whether no more need come: the server has said so, or has said too much."""

    def read(self, data: bytes) -> Piece | None:
        """The piece of an event; None where it says nothing. `UpstreamError` for what is none."""
        ...

    def finished(self) -> Piece:
        """The last piece, after all events; `UpstreamError` where the answer has no end."""
        ...


class _Counted:
    """What answers of both kinds have in common: their counts, times and end."""

    def __init__(self, name: str, asked: Asked) -> None:
        self.thinking_tokens = 0
        self.is_over = False
        self._name = name
        self._asked = asked
        self._usage: wire.Usage | None = None
        self._timings: wire.Timings | None = None
        self._reason = ""
        self._stop_text = ""
        self._pieces = self._letters = 0
        self._most = 2 * asked.max_tokens + 64 if asked.max_tokens else MAX_PIECES
        """Pieces of text at most: a token may come in two, hardly in more."""
        self._began = time.monotonic_ns()
        self._first = 0

    def _note(self, event: wire.ChatEvent | wire.TextEvent) -> None:
        """Keeps what an event says beside its choices."""
        if event.error is not None:
            reason = wire.message_of(event.error) or "without saying why"
            raise UpstreamError(self._name, f"broke off its answer: {reason}", is_gone=False)
        self._usage = event.usage or self._usage
        self._timings = event.timings or self._timings
        if event.model and event.model != self._asked.model:
            log.debug("upstream %s answers as %r where %r was asked", self._name, event.model, self._asked.model)

    def _count(self, letters: int) -> None:
        """Counts a piece of text."""
        if not self._pieces:
            self._first = time.monotonic_ns()
        self._pieces += 1
        self._letters += letters
        if self._pieces > self._most:
            if not self._asked.max_tokens:
                raise UpstreamError(self._name, f"does not end its answer: it has more than {MAX_PIECES} pieces")
            log.warning("upstream %s says more than the %d tokens it was asked for", self._name, self._asked.max_tokens)
            self.is_over, self._reason = True, "length"

    def _ends(self, reason: str | None, stop_reason: Any) -> None:
        if reason:
            self._reason = reason
            self._stop_text = stop_reason if isinstance(stop_reason, str) else ""

    def _finish(self) -> Finish:
        if not self._reason:
            raise UpstreamError(self._name, "ended in the middle of its answer", is_gone=False)
        now = time.monotonic_ns()
        first = self._first or now
        prompt, cached, written, thinking = self._counts()
        self.thinking_tokens = thinking
        timings = self._timings or wire.Timings()
        return Finish(
            reason="length" if self._reason == "length" else "stop",
            stop_text=self._stop_text,
            prompt_tokens=prompt,
            cached_tokens=cached,
            prompt_duration=_believed(timings.prompt_ms, first - self._began),
            generated_tokens=written,
            drafted_tokens=max(0, min(timings.draft_n, HIDDEN_TOKENS)),
            accepted_tokens=max(0, min(timings.draft_n_accepted, timings.draft_n, written)),
            generation_duration=_believed(timings.predicted_ms, now - first),
        )

    def _counts(self) -> tuple[int, int, int, int]:
        """Tokens of the prompt, those of them that were cached, of the answer, and those of it that were thoughts.

        A count that cannot be is replaced: no text has more tokens than bytes.
        """
        usage = self._usage or wire.Usage()
        details, more = usage.prompt_tokens_details, usage.completion_tokens_details
        thinking = (more.reasoning_tokens if more else None) or 0
        most = self._letters + self._pieces + 16
        if thinking > 0:
            most += min(HIDDEN_TOKENS, self._asked.max_tokens or HIDDEN_TOKENS)
        prompt = self._possible("prompt", usage.prompt_tokens, self._asked.size + (1 << 16), self._asked.size // 8)
        cached = (details.cached_tokens if details else None) or (self._timings.cache_n if self._timings else 0)
        written = self._possible("answer", usage.completion_tokens, most, self._pieces)
        return prompt, max(0, min(cached, prompt)), written, max(0, min(thinking, written))

    def _possible(self, what: str, said: int | None, most: int, counted: int) -> int:
        if said is None:
            return counted
        if 0 <= said <= most:
            return said
        log.warning("upstream %s says that the %s has %d tokens, which cannot be", self._name, what, said)
        return counted


class ChatAnswer(_Counted):
    """An answer of `/v1/chat/completions`. Calls of tools come with the last piece."""

    def __init__(self, name: str, asked: Asked) -> None:
        super().__init__(name, asked)
        self._calls: list[_CallParts] = []
        self._places: dict[int, _CallParts] = {}

    def read(self, data: bytes) -> Piece | None:
        event = wire.decoded(self._name, wire.decode_chat, data)
        if event.usage is not None or event.timings is not None or event.error is not None or not event.choices:
            self._note(event)
        for choice in event.choices:
            if choice.index:
                continue
            delta = choice.delta
            if delta.tool_calls:
                self._collect(delta.tool_calls)
            if choice.finish_reason:
                self._ends(choice.finish_reason, choice.stop_reason)
            text, thinking = delta.content or "", delta.reasoning_content or delta.reasoning or ""
            logprobs: tuple[TokenLogprob, ...] = ()
            if self._asked.top_logprobs is not None:
                logprobs = wire.chat_logprobs(choice.logprobs, self._asked.top_logprobs)
            if text or thinking:
                self._count(len(text.encode()) + len(thinking.encode()))
            elif not logprobs:
                return None
            return Piece(text, logprobs=logprobs, thinking=thinking)
        return None

    def finished(self) -> Piece:
        calls, unread = self._finished_calls()
        return Piece(unread, tool_calls=calls, finish=self._finish())

    def _collect(self, deltas: list[wire.CallDelta]) -> None:
        """Some servers number all calls 0 and send each of them whole."""
        for delta in deltas:
            index = len(self._calls) if delta.index is None else delta.index
            parts = self._places.get(index)
            if parts is None or (delta.id and parts.id and delta.id != parts.id):
                parts = self._places[index] = _CallParts()
                self._calls.append(parts)
                if len(self._calls) > MAX_CALLS:
                    raise UpstreamError(self._name, f"calls tools more than {MAX_CALLS} times", is_gone=False)
            parts.id = parts.id or delta.id or ""
            name, arguments = delta.function.name or "", delta.function.arguments or ""
            parts.name = (parts.name + name)[:MAX_NAME]
            parts.arguments.append(arguments)
            self._letters += len(name.encode()) + len(arguments.encode()) + 16  # and what stands around it

    def _finished_calls(self) -> tuple[tuple[ToolCall, ...], str]:
        """The complete calls, and as text those whose arguments were cut off, which must not be made."""
        complete: list[ToolCall] = []
        unread = ""
        for parts in self._calls:
            arguments = "".join(parts.arguments)
            try:
                read = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
            except (msgspec.MsgspecError, RecursionError):
                unread += f'{{"name": "{parts.name}", "arguments": {arguments}'
            else:
                complete.append(ToolCall(parts.name, read, len(complete), parts.id))
        return tuple(complete), unread


class TextAnswer(_Counted):
    """An answer of `/v1/completions`."""

    def read(self, data: bytes) -> Piece | None:
        event = wire.decoded(self._name, wire.decode_text, data)
        self._note(event)
        for choice in event.choices:
            if choice.index:
                continue
            if choice.finish_reason:
                self._ends(choice.finish_reason, choice.stop_reason)
            text = choice.text or ""
            logprobs: tuple[TokenLogprob, ...] = ()
            if self._asked.top_logprobs is not None:
                logprobs = wire.text_logprobs(self._name, choice.logprobs, self._asked.top_logprobs)
            if text:
                self._count(len(text.encode()))
            elif not logprobs:
                return None
            return Piece(text, logprobs=logprobs)
        return None

    def finished(self) -> Piece:
        return Piece(finish=self._finish())


class _CallParts:
    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []


def _believed(milliseconds: float, passed: int) -> int:
    """Nanoseconds that a server says something took, if that is possible; else those that have passed here."""
    said = milliseconds * 1e6
    return int(said) if 0 < said <= passed else max(0, passed)
