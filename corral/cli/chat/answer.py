"""Prints a model's answer as it comes: thinking apart from the answer, words wrapped on a terminal, timings.

What goes to a pipe or a file is what the model said, unchanged. Source: spec cli §4.3.
"""

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Self, TextIO

from corral.cli.chat.options import DisplayOptions
from corral.cli.chat.waiting import first_chunks
from corral.cli.display import terminal
from corral.cli.display.text import LAYOUT, printable
from corral.client import Stream
from corral.golang import durations
from corral.messages import Chunk, Metrics

if TYPE_CHECKING:
    from corral.cli.display.markdown import MarkdownScreen
    from corral.cli.display.wrap import Wrapper

_HEADING = "\x1b[38;5;245m\x1b[1m"
_BODY = "\x1b[38;5;245m"
_PLAIN = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, as a conversation keeps it. `metrics` is None when the stream ended early."""

    content: str
    thinking: str
    metrics: Metrics | None


class Stopped(KeyboardInterrupt):
    """The user has stopped an answer; `answer` is what was said until then."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def print_answer(chunks: Stream[Chunk], display: DisplayOptions, stream: TextIO | None = None) -> Answer:
    """Prints an answer to its end, without a newline after it; `chunks` is closed whatever happens.

    `Stopped` where it is interrupted.
    """
    printer = _Printer(stream or sys.stdout, display)
    content: list[str] = []
    thinking: list[str] = []
    metrics = None
    try:
        with closing(chunks), printer:
            first = first_chunks(chunks, hide_thinking=display.hide_thinking)
            for chunk in first[:1]:
                _warn(chunk)
            for chunk in chain(first, chunks):
                content.append(chunk.content)
                thinking.append(chunk.thinking)
                metrics = chunk.metrics or metrics
                printer.print(chunk)
    except KeyboardInterrupt:
        raise Stopped(Answer("".join(content), "".join(thinking), metrics)) from None
    return Answer("".join(content), "".join(thinking), metrics)


def _warn(chunk: Chunk) -> None:
    """Warns of prompt tokens that were left out, and of parts of the format that are not enforced."""
    if chunk.truncated_tokens:
        many = f"{chunk.truncated_tokens} token{'s' * (chunk.truncated_tokens != 1)}"
        print(f"Warning: {many} of the prompt left out to fit the context", file=sys.stderr)
    if chunk.unenforced:
        parts = printable(", ".join(chunk.unenforced))
        print(f"Warning: these parts of the format are not enforced: {parts}", file=sys.stderr)


class _Printer:
    """Writes chunks to a stream; knows whether the model is thinking. Left in the middle, it resets the colour."""

    def __init__(self, stream: TextIO, display: DisplayOptions) -> None:
        self._stream = stream
        self._hide = display.hide_thinking
        self._terminal = stream.isatty()
        self._has_colours = terminal.has_colours(stream)
        self._width = terminal.size(stream)[0]
        self._wrapper = self._new_wrapper() if display.wrap and self._terminal else None
        self._formatted = self._formatter() if display.markdown and terminal.can_draw(stream) else None
        self._thinking = False
        self._thought = ""
        self._within_line = False

    def print(self, chunk: Chunk) -> None:
        if chunk.thinking and not self._hide:
            self._think(chunk.thinking)
        if chunk.content or chunk.tool_calls:
            self._end_thinking()
        if chunk.content and self._formatted:
            self._formatted.feed(chunk.content)
        elif chunk.content:
            self._write(chunk.content)
        if chunk.tool_calls:
            self._end_formatted()
        for call in chunk.tool_calls:
            arguments = json.dumps(call.arguments, ensure_ascii=False, separators=(",", ":"))
            self._write(f"  Model called a non-existent function '{call.name}()' with arguments: {arguments}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end_thinking()
        if self._formatted:
            self._within_line |= self._formatted.close()
        if kind is KeyboardInterrupt and self._wrapper:
            self._wrapper.flush()  # the word that is held back would come after the ^C
        self._flush_words()
        if self._thinking:
            self._colour(_PLAIN)
        if kind and kind is not KeyboardInterrupt and self._terminal and self._within_line:
            self._stream.write("\n")  # an error will follow
        self._stream.flush()

    def _think(self, text: str) -> None:
        if not self._thinking:
            self._end_formatted()
            self._thinking = True
            self._heading("Thinking...", "\n")
            self._colour(_BODY)
        self._thought = (self._thought + text)[-1:]
        self._write(text)

    def _end_thinking(self) -> None:
        if not self._thinking:
            return
        self._thinking = False
        self._colour(_PLAIN)
        if self._thought != "\n":
            self._write("\n")
        self._heading("...done thinking.", "\n\n")

    def _end_formatted(self) -> None:
        if self._formatted and self._formatted.close():
            self._stream.write("\n\n")

    def _heading(self, text: str, end: str) -> None:
        self._colour(_HEADING)
        self._write(text)
        self._colour(_PLAIN)
        self._write(end)

    def _colour(self, code: str) -> None:
        self._flush_words()
        if self._has_colours:
            self._stream.write(code)

    def _write(self, text: str) -> None:
        if self._terminal:
            text = printable(text, keep=LAYOUT)
        if text:
            self._within_line = not text.endswith("\n")
        self._stream.write(self._wrapped(text))

    def _flush_words(self) -> None:
        if self._wrapper:
            self._stream.write(self._wrapper.flush())

    def _wrapped(self, text: str) -> str:
        """The text, wrapped at the width that the window has by now."""
        if self._wrapper is None:
            return text
        width = terminal.size(self._stream)[0]
        if width != self._width:
            self._width = width
            self._wrapper.resize(width)
        return self._wrapper.feed(text)

    def _new_wrapper(self) -> "Wrapper":
        from corral.cli.display.wrap import Wrapper

        return Wrapper(self._width)

    def _formatter(self) -> "MarkdownScreen":
        from corral.cli.display.markdown import MarkdownScreen

        return MarkdownScreen(self._stream)


def timings_text(metrics: Metrics) -> str:
    """The lines of what an answer cost; what is zero is left out."""
    read = metrics.prompt_eval_count - metrics.cached_tokens
    rows = [
        ("total duration:", _duration(metrics.total_duration)),
        ("load duration:", _duration(metrics.load_duration)),
        ("prompt eval count:", _tokens(metrics.prompt_eval_count)),
        ("prompt cached count:", _tokens(metrics.cached_tokens)),
        ("prompt eval duration:", _duration(metrics.prompt_eval_duration)),
        ("prompt eval rate:", _rate(read, metrics.prompt_eval_duration)),
        ("eval count:", _tokens(metrics.eval_count)),
        ("eval duration:", _duration(metrics.eval_duration)),
        ("eval rate:", _rate(metrics.eval_count, metrics.eval_duration)),
        ("drafted count:", _tokens(metrics.drafted_tokens)),
        ("accepted count:", _tokens(metrics.accepted_tokens) or ("0 token(s)" if metrics.drafted_tokens else "")),
    ]
    return "".join(f"{label:<22}{text}\n" for label, text in rows if text)


def _duration(nanoseconds: int) -> str:
    return durations.text(nanoseconds) if nanoseconds > 0 else ""


def _tokens(count: int) -> str:
    return f"{count} token(s)" if count > 0 else ""


def _rate(count: int, nanoseconds: int) -> str:
    return f"{count * durations.SECOND / nanoseconds:.2f} tokens/s" if count > 0 and nanoseconds > 0 else ""
