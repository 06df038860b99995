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

from corral.messages import Chunk, Json, Tool, ToolCall
from corral.parsers.base import OutputParser, Warning, unfinished
from corral.parsers.calls import MAX_NESTING, decode

NAMES = ("gemma4", "gemma4-no-thinking")
CONTENT = "<channel|>"
_CHANNEL, _CHANNEL_END = "<|channel>", "<channel|>"
_CALL, _CALL_END = "<|tool_call>", "<tool_call|>"
_QUOTE = '<|"|>'
MARKS = (_CHANNEL, _CHANNEL_END, _CALL, _CALL_END, _QUOTE)
_THOUGHT = "thought"
"""The name of the one channel there is, on the line of its opening mark."""

_IN_TEXT = re.compile("|".join(map(re.escape, (_CHANNEL, _CHANNEL_END, _CALL))))
_IN_THOUGHT = re.compile(re.escape(_CHANNEL_END))


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    end = prompt.rstrip()
    return Gemma4Parser(tools, inside=end.endswith((_CHANNEL, _CHANNEL + _THOUGHT)))


class _State(Enum):
    TEXT = auto()
    NAME = auto()
    """Of a channel, which goes."""
    THOUGHT = auto()
    CALL = auto()


class Gemma4Parser:
    """Reads thoughts, text and calls of `tools`; a call that cannot be read is content. White space at marks goes."""

    def __init__(self, tools: Sequence[Tool], *, inside: bool = False) -> None:
        self.warnings: list[Warning] = []
        self._names = {tool.name for tool in tools}
        self._state = _State.NAME if inside else _State.TEXT
        self._held = ""
        self._space: list[str] = []
        """White space that goes if a mark follows."""
        self._trims = False
        """A mark came before: white space goes until there is text."""
        self._looked = 0
        """How much of `_held` has been searched for the end of a call."""
        self._count = 0

    def feed(self, text: str) -> Iterator[Chunk]:
        self._held += text
        yield from self._advance(ended=False)

    def flush(self) -> Iterator[Chunk]:
        yield from self._advance(ended=True)
        if self._state is _State.CALL:
            held, self._held = self._held, ""
            yield from self._called(held)
        yield from self._written("", "".join(self._space))
        self._space = []

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        before = None
        while before != (self._state, len(self._held)):
            before = (self._state, len(self._held))
            match self._state:
                case _State.TEXT:
                    yield from self._read(_IN_TEXT, (_CHANNEL, _CHANNEL_END, _CALL), ended)
                case _State.NAME:
                    self._read_name(ended)
                case _State.THOUGHT:
                    yield from self._read(_IN_THOUGHT, (_CHANNEL_END,), ended)
                case _State.CALL:
                    yield from self._read_call()

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
        self._space, self._trims, self._looked = [], True, 0
        self._state = {_CHANNEL: _State.NAME, _CALL: _State.CALL}.get(found[0], _State.TEXT)

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

    def _read_call(self) -> Iterator[Chunk]:
        end = self._held.find(_CALL_END, self._looked)
        if end < 0:
            self._looked = max(0, len(self._held) - len(_CALL_END))
            return
        call, self._held = self._held[:end], self._held[end + len(_CALL_END) :]
        self._looked, self._state = 0, _State.TEXT
        yield from self._called(call, _CALL_END)

    def _called(self, text: str, closing: str = "") -> Iterator[Chunk]:
        name, brace, _ = text.strip().removeprefix("call:").partition("{")
        arguments = _arguments(text[text.find("{") :]) if brace else None
        if arguments is None or name.strip() not in self._names:
            self.warnings.append("tool_call_unparsed")
            self._trims = False
            yield Chunk(content=_CALL + text + closing)
            return
        yield Chunk(tool_calls=(ToolCall(name=name.strip(), arguments=arguments, index=self._count),))
        self._count += 1


_SPACE = re.compile(r"\s*")
_KEY = re.compile(r"[^:{}\[\],]+")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,{}\[\]]+', re.DOTALL)
"""A number, `true`, `false`, `null`, or a text as JSON has it, which some models write."""


def _arguments(text: str) -> dict[str, Json] | None:
    """What a call has between its braces; None where that is not in the notation."""
    try:
        value, end = _value(text, 0, 0)
    except ValueError:
        return None
    return value if isinstance(value, dict) and not text[end:].strip() else None


def _value(text: str, at: int, depth: int) -> tuple[Json, int]:
    """The value that begins at a place, and where it ends. `ValueError` when there is none."""
    if depth > MAX_NESTING:
        raise ValueError("nested too deeply")
    at = _skip(text, at)
    if text.startswith(_QUOTE, at):
        end = text.index(_QUOTE, at + len(_QUOTE))
        return text[at + len(_QUOTE) : end], end + len(_QUOTE)
    if text.startswith("{", at):
        return _members(text, at + 1, depth)
    if text.startswith("[", at):
        return _items(text, at + 1, depth)
    word = _WORD.match(text, at)
    if word is None:
        raise ValueError("no value")
    return decode(word[0]), word.end()


def _members(text: str, at: int, depth: int) -> tuple[Json, int]:
    found: dict[str, Json] = {}
    at = _skip(text, at)
    while not text.startswith("}", at):
        key = _KEY.match(text, at)
        if key is None or not text.startswith(":", key.end()):
            raise ValueError("no key")
        name = key[0].strip().removeprefix(_QUOTE).removesuffix(_QUOTE)
        found[name], at = _value(text, key.end() + 1, depth + 1)
        at = _next(text, at, "}")
    return found, at + 1


def _items(text: str, at: int, depth: int) -> tuple[Json, int]:
    found: list[Json] = []
    at = _skip(text, at)
    while not text.startswith("]", at):
        value, at = _value(text, at, depth + 1)
        found.append(value)
        at = _next(text, at, "]")
    return found, at + 1


def _next(text: str, at: int, closing: str) -> int:
    """Behind the comma after a value, or at what closes them all."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(closing, at):
        raise ValueError("neither comma nor end")
    return at


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at
