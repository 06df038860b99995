"""Pieces → chunks: runs an answer through its parser, gives tool calls their ids, keeps log probabilities in step.

Part of the meeting point. Knows parsers and pieces; no model, no engine.
"""

import secrets
import string
from collections.abc import Iterator, Sequence

import msgspec

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
        marks: Sequence[str] = (),
        is_bare: bool = False,
    ) -> None:
        self._parser = parser
        self._is_bare = is_bare
        self.reads_thoughts = reads_thoughts
        self.marks = tuple(marks)
        """Texts it looks for, which the engine has to show even where they are special tokens."""
        self._content_mark = content_mark
        self._raw: list[str] = []
        """All that the engine has written so far, tags and all."""
        self.thoughts = ""
        """What leads up to content, once that is known (`lead_up_to`)."""

    @property
    def warnings(self) -> Sequence[str]:
        """What did not go as the model's format wants (`parsers.Warning`)."""
        return () if self._parser is None or self._is_bare else self._parser.warnings

    def read(self, piece: Piece) -> Iterator[Chunk]:
        """Chunks that have become certain. What the engine has parsed already passes through."""
        if piece.thinking or piece.tool_calls:
            yield from self._release(bool(piece.tool_calls))
            yield Chunk(thinking=piece.thinking, tool_calls=_with_ids(piece.tool_calls))
        if self._parser is None:
            if piece.text or piece.logprobs:
                yield Chunk(piece.text, logprobs=piece.logprobs)
            return
        if self.reads_thoughts:
            self._raw.append(piece.text)
        yield from self._told(self._parser.feed(piece.text), piece.logprobs)

    def end(self) -> Iterator[Chunk]:
        """What was held back until the answer ended."""
        if self._parser is not None:
            yield from self._told(self._parser.flush(), ())

    def lead_up_to(self, content: str) -> None:
        """Takes all that was written before `content`, which has just begun, for `thoughts`.

        Where none has begun, a thought that was left open is closed.
        """
        raw = "".join(self._raw)
        if content:
            self.thoughts = raw[: raw.rfind(content)] if content in raw else raw
        else:
            self.thoughts = raw if raw.rstrip().endswith(self._content_mark) else raw + self._content_mark

    def _release(self, has_call: bool) -> Iterator[Chunk]:
        """Where the engine has found a call, other text is not one."""
        if has_call and isinstance(self._parser, RescueParser):
            yield from self._told(self._parser.release(), ())

    def _told(self, chunks: Iterator[Chunk], logprobs: tuple[TokenLogprob, ...]) -> Iterator[Chunk]:
        """The chunks with ids on their calls; the first carries the log probabilities, alone if it must."""
        for chunk in chunks:
            yield msgspec.structs.replace(chunk, tool_calls=_with_ids(chunk.tool_calls), logprobs=logprobs)
            logprobs = ()
        if logprobs:
            yield Chunk(logprobs=logprobs)


class Told:
    """What has gone out of an answer that the engine parses. It can be gone on with where the engine breaks off."""

    def __init__(self, think_tags: tuple[str, str] | None) -> None:
        self._think_tags = think_tags
        self._thinking: list[str] = []
        self._content: list[str] = []
        self.steps = 0
        """Chunks, which are tokens as a rule."""

    def note(self, chunk: Chunk) -> None:
        self.steps += 1
        self._thinking.append(chunk.thinking)
        self._content.append(chunk.content)

    def after(self, prompt: str) -> str | None:
        """The prompt and behind it what was told; None where that cannot be written as the model wrote it."""
        thinking, content = "".join(self._thinking).strip(), "".join(self._content)
        if not thinking:
            return prompt + content
        if self._think_tags is None:
            return None
        opening, closing = self._think_tags
        begin = prompt if prompt.rstrip().endswith(opening) else f"{prompt}{opening}\n"
        return f"{begin}{thinking}\n{closing}" + (f"\n\n{content}" if content else "")


def is_unread(error: EngineError) -> bool:
    """Whether the engine gave up reading an answer: it has no grammar for calls, lost its way in it, or parsed none."""
    return any(reason in str(error) for reason in _UNREAD)


_UNREAD = ("failed to parse grammar", "empty grammar stack", "does not match the expected")


def reader_for(
    *,
    prompt: str = "",
    family: str = "",
    think_tags: tuple[str, str] | None = None,
    tool_tag: str = "",
    tools: Sequence[Tool] = (),
    thinks: bool = False,
) -> Reader:
    """A reader for the answer to `prompt`; without anything to look for, text passes through unread.

    `thinks`: thoughts are wanted. They are told from content also where they are not.
    """
    if not family and think_tags is None and not tools:
        return Reader(None)
    if family not in parsers.families():
        family = ""
    parser = parsers.build(prompt=prompt, family=family, think_tags=think_tags, tool_tag=tool_tag, tools=tools)
    marks = (*(think_tags or ()), *((tool_tag,) if tool_tag else ()), *parsers.marks(family))
    content_mark = parsers.content_mark(family) or (think_tags[1] if think_tags else "")
    reads_thoughts = family != "" or (thinks and think_tags is not None)
    return Reader(parser, reads_thoughts=reads_thoughts, content_mark=content_mark, marks=marks)


def rescuing_reader(tools: Sequence[Tool], *, is_bare: bool = False) -> Reader:
    """For an answer the engine has parsed: calls that it took for text are still found.

    `is_bare`: for one that has to be a call without any tags, which is nothing to warn of.
    """
    return Reader(RescueParser(tools) if tools else None, is_bare=is_bare)


def _with_ids(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(call if call.id else msgspec.structs.replace(call, id=_new_id()) for call in calls)


def _new_id() -> str:
    return "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
