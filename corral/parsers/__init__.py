"""What a model said: text → content, thinking and tool calls. Parsers get text and plain values, never a request.

A parser serves one answer: `feed` it each piece, `flush` it at the end (`base.OutputParser`).
"""

from collections.abc import Iterator, Sequence

from corral.messages import Chunk, Tool
from corral.parsers.base import OutputParser, PlainText, Warning
from corral.parsers.families import capabilities, content_mark, families, marks
from corral.parsers.rescue import RescueParser
from corral.parsers.thinking import ThinkingParser
from corral.parsers.tools import ToolCallParser

__all__ = ["OutputParser", "Warning", "build", "capabilities", "content_mark", "families", "marks"]


def build(
    *,
    prompt: str = "",
    family: str = "",
    think_tags: tuple[str, str] | None = None,
    tool_tag: str = "",
    tools: Sequence[Tool] = (),
) -> OutputParser:
    """A reader for the answer to `prompt` (its end is enough: whether it already opens a thought).

    `family`: a parser's name (`families()`), which reads thoughts and calls by itself. Else thoughts are looked for
    between `think_tags` and calls of `tools` after `tool_tag`, as far as given. What is no call by then but can only
    have been meant as calls of `tools` is rescued.
    """
    rescue = RescueParser(tools) if tools else None
    if family:
        return _Answer(PlainText(), families()[family](tools, prompt), rescue)
    if think_tags is None and not tools:
        return PlainText()
    thinking = None
    if think_tags is not None:
        opening, closing = think_tags
        thinking = ThinkingParser(opening, closing, inside=prompt.rstrip().endswith(opening))
    return _Answer(
        thinking or PlainText(),
        ToolCallParser(tool_tag, tools) if tools and tool_tag else PlainText(),
        rescue,
    )


class _Answer:
    """Thinking first; what it leaves as content goes through the tool-call parser, and what that leaves to rescue."""

    def __init__(self, thinking: OutputParser, calls: OutputParser, rescue: RescueParser | None) -> None:
        self._thinking = thinking
        self._calls = calls
        self._rescue = rescue

    @property
    def warnings(self) -> list[Warning]:
        rescued = [] if self._rescue is None else self._rescue.warnings
        return [*self._thinking.warnings, *self._calls.warnings, *rescued]

    def feed(self, text: str) -> Iterator[Chunk]:
        yield from self._content(self._thinking.feed(text))

    def flush(self) -> Iterator[Chunk]:
        yield from self._content(self._thinking.flush())
        yield from self._without_call(self._calls.flush())
        if self._rescue is not None:
            yield from self._rescue.flush()

    def _content(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.content:
                yield from self._without_call(self._calls.feed(chunk.content))
            else:
                yield chunk

    def _without_call(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.content and self._rescue is not None:
                yield from self._rescue.feed(chunk.content)
                continue
            if chunk.tool_calls and self._rescue is not None:
                yield from self._rescue.release()
            yield chunk
