"""Pieces → chunks: runs an answer through its parser, gives tool calls their ids, keeps log probabilities in step.

Knows parsers and pieces; no model, no engine.
"""

import secrets
import string
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from corral import parsers
from corral.engine.base import Piece
from corral.errors import EngineError
from corral.messages import Chunk, TokenLogprob, Tool, ToolCall
from corral.parsers import OutputParser
from corral.parsers.rescue import RescueParser

_ID_LETTERS = string.ascii_lowercase + string.digits


class Reader:
    """Reads one answer."""

    def __init__(
        self,
        parser: OutputParser | None,
        *,
        reads_thoughts: bool = False,
        content_mark: str = "",
        is_bare: bool = False,
    ) -> None:
        self._parser = parser
        self._is_bare = is_bare
        self.reads_thoughts = reads_thoughts
        self._content_mark = content_mark
        self._raw: list[str] = []
        """All that the engine has written so far, tags and all."""
        self.thinking_prefix = ""
        """What was written before the content, once that is known (`fix_thinking_prefix`)."""

    @property
    def warnings(self) -> Sequence[str]:
        """What did not go as the model's format wants (`parsers.Warning`)."""
        return () if self._parser is None or self._is_bare else self._parser.warnings

    def read(self, piece: Piece) -> Sequence[Chunk]:
        """Chunks that have become certain. What the engine has parsed already passes through."""
        if self._parser is None and not piece.thinking and not piece.tool_calls:
            return (Chunk(piece.text, logprobs=piece.logprobs),) if piece.text or piece.logprobs else ()
        return tuple(self._read(piece))

    def _read(self, piece: Piece) -> Iterator[Chunk]:
        if piece.thinking or piece.tool_calls:
            yield from self._release(bool(piece.tool_calls))
            yield Chunk(thinking=piece.thinking, tool_calls=_with_ids(piece.tool_calls))
        if self._parser is None:
            if piece.text or piece.logprobs:
                yield Chunk(piece.text, logprobs=piece.logprobs)
            return
        if self.reads_thoughts:
            self._raw.append(piece.text)
        yield from self._with_logprobs(self._parser.feed(piece.text), piece.logprobs)

    def end(self) -> Iterator[Chunk]:
        """What was held back until the answer ended."""
        if self._parser is not None:
            yield from self._with_logprobs(self._parser.flush(), ())

    def fix_thinking_prefix(self, content: str) -> None:
        """Sets `thinking_prefix` to all that was written before `content`, which has just begun.

        Without content, a thought that was left open is closed.
        """
        raw = "".join(self._raw)
        if content:
            self.thinking_prefix = raw[: raw.rfind(content)] if content in raw else raw
        else:
            self.thinking_prefix = raw if raw.rstrip().endswith(self._content_mark) else raw + self._content_mark

    def _release(self, has_call: bool) -> Iterator[Chunk]:
        """Where the engine has found a call, other text is not one."""
        if has_call and isinstance(self._parser, RescueParser):
            yield from self._with_logprobs(self._parser.release(), ())

    def _with_logprobs(self, chunks: Iterator[Chunk], logprobs: tuple[TokenLogprob, ...]) -> Iterator[Chunk]:
        """The chunks with ids on their calls; the first carries the log probabilities, alone if it must."""
        for chunk in chunks:
            yield msgspec.structs.replace(chunk, tool_calls=_with_ids(chunk.tool_calls), logprobs=logprobs)
            logprobs = ()
        if logprobs:
            yield Chunk(logprobs=logprobs)


class StreamedAnswer:
    """What was already sent of an answer that the engine parses, to go on with it where the engine's parser fails."""

    def __init__(self, think_tags: tuple[str, str] | None) -> None:
        self._think_tags = think_tags
        self._thinking: list[str] = []
        self._content: list[str] = []
        self.steps = 0
        """Chunks, which are tokens as a rule."""

    def add(self, chunk: Chunk) -> None:
        self.steps += 1
        self._thinking.append(chunk.thinking)
        self._content.append(chunk.content)

    def text_after(self, prompt: str) -> str | None:
        """The prompt and what was sent behind it; None where that cannot be written as the model wrote it."""
        thinking, content = "".join(self._thinking).strip(), "".join(self._content)
        if not thinking:
            return prompt + content
        if self._think_tags is None:
            return None
        opening, closing = self._think_tags
        begin = prompt if prompt.rstrip().endswith(opening) else f"{prompt}{opening}\n"
        return f"{begin}{thinking}\n{closing}" + (f"\n\n{content}" if content else "")


def is_parser_failure(error: EngineError) -> bool:
    """Whether the engine's parser of answers failed: no grammar for calls, an answer outside of it, or none parsed."""
    return any(reason in str(error) for reason in _PARSER_FAILURES)


_PARSER_FAILURES = ("failed to parse grammar", "empty grammar stack", "does not match the expected")


class AnswerFormat(Struct, frozen=True, kw_only=True):
    """What an answer may hold besides plain text, and how it is marked. Nothing set: the text passes through unread."""

    family: str = ""
    """The parser of a family (`parsers.families`), empty for the tags below."""
    think_tags: tuple[str, str] | None = None
    tool_tag: str = ""
    tools: tuple[Tool, ...] = ()
    thinks: bool = False
    """Whether thoughts are wanted. They are separated from content also where they are not."""
    is_forced_call: bool = False
    """Whether the grammar lets only a bare call of one of the tools through."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that the reader looks for, which the engine has to show even where they are special tokens."""
        tool_tag = (self.tool_tag,) if self.tool_tag else ()
        return (*(self.think_tags or ()), *tool_tag, *parsers.marks(_known(self.family)))


def reader_for(answer: AnswerFormat, prompt: str) -> "Reader":
    """A reader for the answer to `prompt`."""
    if answer.is_forced_call:
        return rescuing_reader(answer.tools, is_bare=True)
    if not answer.family and answer.think_tags is None and not answer.tools:
        return Reader(None)
    family = _known(answer.family)
    parser = parsers.build(
        prompt=prompt,
        family=family,
        think_tags=answer.think_tags,
        tool_tag=answer.tool_tag,
        tools=answer.tools,
    )
    content_mark = parsers.content_mark(family) or (answer.think_tags[1] if answer.think_tags else "")
    reads_thoughts = family != "" or (answer.thinks and answer.think_tags is not None)
    return Reader(parser, reads_thoughts=reads_thoughts, content_mark=content_mark)


def rescuing_reader(tools: Sequence[Tool], *, is_bare: bool = False) -> "Reader":
    """For an answer the engine has parsed: calls that it took for text are still found.

    `is_bare`: the answer has to be a call without any tags, which is nothing to warn of.
    """
    return Reader(RescueParser(tools) if tools else None, is_bare=is_bare)


def _known(family: str) -> str:
    return family if family in parsers.families() else ""


def _with_ids(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(call if call.id else msgspec.structs.replace(call, id=_new_id()) for call in calls)


def _new_id() -> str:
    return "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
