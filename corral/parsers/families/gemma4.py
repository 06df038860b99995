"""Answers of Gemma 4: thoughts in a channel, calls in a notation of its own (spec cli §16.3).

    <|channel>thought
    …<channel|>
    <|tool_call>call:NAME{city:<|"|>Oslo<|"|>,days:[1,2]}<tool_call|>

Keys have no quotes, texts have a mark of their own on both sides. A channel may come again, and a closing mark without
an opening one means nothing.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from corral.messages import Chunk, Tool
from corral.parsers.base import OutputParser, Warning, unfinished
from corral.parsers.notation import Notation
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser

NAMES = ("gemma4", "gemma4-no-thinking")
WITHOUT_THINKING = ("gemma4-no-thinking",)
CONTENT = "<channel|>"
_CHANNEL, _CHANNEL_END = "<|channel>", "<channel|>"
_CALL, _CALL_END = "<|tool_call>", "<tool_call|>"
_QUOTE = '<|"|>'
MARKS = (_CHANNEL, _CHANNEL_END, _CALL, _CALL_END, _QUOTE)
_THOUGHT = "thought"
"""The name of the one channel there is, on the line of its opening mark."""

_IN_TEXT = re.compile("|".join(map(re.escape, (_CHANNEL, _CHANNEL_END))))
_IN_THOUGHT = re.compile(re.escape(_CHANNEL_END))


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    inside = prompt.rstrip().endswith((_CHANNEL, _CHANNEL + _THOUGHT))
    return Chained(_Channels(inside=inside), TaggedParser(tools, [Block(_CALL, _CALL_END, _calls_in)]))


def _calls_in(text: str) -> Calls:
    return [Notation(_QUOTE).call(text.removeprefix(_CALL).removesuffix(_CALL_END))]


class _State(Enum):
    TEXT = auto()
    NAME = auto()
    """Of a channel, which goes."""
    THOUGHT = auto()


class _Channels:
    """Tells thoughts from the rest. White space at marks goes."""

    def __init__(self, *, inside: bool) -> None:
        self.warnings: list[Warning] = []
        self._state = _State.NAME if inside else _State.TEXT
        self._held = ""
        self._space: list[str] = []
        """White space that goes if a mark follows."""
        self._trims = False
        """A mark came before: white space goes until there is text."""

    def feed(self, text: str) -> Iterator[Chunk]:
        self._held += text
        yield from self._advance(ended=False)

    def flush(self) -> Iterator[Chunk]:
        yield from self._advance(ended=True)
        yield from self._written("", "".join(self._space))
        self._space = []

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        before = None
        while before != (self._state, len(self._held)):
            before = (self._state, len(self._held))
            match self._state:
                case _State.TEXT:
                    yield from self._read(_IN_TEXT, (_CHANNEL, _CHANNEL_END), ended)
                case _State.NAME:
                    self._read_name(ended)
                case _State.THOUGHT:
                    yield from self._read(_IN_THOUGHT, (_CHANNEL_END,), ended)

    def _read(self, wanted: re.Pattern[str], marks: tuple[str, ...], ended: bool) -> Iterator[Chunk]:
        found = wanted.search(self._held)
        end = found.start() if found else len(self._held) - (0 if ended else unfinished(self._held, marks))
        text, self._held = self._held[:end], self._held[found.end() if found else end :]
        body = text.rstrip()
        if body:
            yield from self._written("".join(self._space), body)
            self._space = []
        if not found:
            self._space.append(text[len(body) :])
            return
        self._space, self._trims = [], True
        self._state = _State.NAME if found[0] == _CHANNEL else _State.TEXT

    def _written(self, space: str, body: str) -> Iterator[Chunk]:
        text = (space + body).lstrip() if self._trims else space + body
        if text:
            yield Chunk(thinking=text) if self._state is _State.THOUGHT else Chunk(content=text)
            self._trims = False

    def _read_name(self, ended: bool) -> None:
        held = self._held.lstrip()
        if _THOUGHT.startswith(held) and not ended and held != _THOUGHT:
            return
        self._held = held.removeprefix(_THOUGHT)
        self._state, self._trims = _State.THOUGHT, True
