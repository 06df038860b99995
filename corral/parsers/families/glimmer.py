"""Answers of Glimmer: messages, each addressed to somebody, and calls in tags (spec cli §16.3).

    to=self<|message|>…<|eom|><|start|>assistant to=NAME<|message|><atem:function_calls>
    <atem:invoke name="NAME">
    <atem:parameter name="city">Oslo</atem:parameter>
    </atem:invoke>
    </atem:function_calls><|eom|>

What goes to `self` is thinking, everything else content or calls. A value is text; the tool's schema says what it is
to be read as.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from corral.messages import Chunk, Json, Tool
from corral.parsers.base import OutputParser, Warning, unfinished
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.typed import properties, typed

NAMES = ("glimmer",)
CONTENT = "<|eom|><|start|>assistant to=user<|message|>"
_START, _MESSAGE = "<|start|>", "<|message|>"
_ENDS = ("<|eom|>", "<|eot|>")
_CALLS, _CALLS_END = "<atem:function_calls>", "</atem:function_calls>"
MARKS = (_START, _MESSAGE, *_ENDS)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which ends in `<|start|>assistant`, in a header or in a message's body."""
    known = {tool.name: tool for tool in tools}

    def read(text: str) -> Calls:
        return list(_calls_in(text, known))

    messages = _Messages()
    _, start, begun = prompt.rpartition(_START)
    if start and begun.strip() != "assistant" and not any(end in begun for end in _ENDS):
        for _ in messages.feed(start + begun):
            pass
    return Chained(messages, TaggedParser(tools, [Block(_CALLS, _CALLS_END, read)]))


def _calls_in(text: str, tools: Mapping[str, Tool]) -> Iterator[tuple[str, dict[str, Json]]]:
    """The calls that are closed; nothing where one is not."""
    for part in text.split("<atem:invoke")[1:]:
        body, closing, _ = part.partition("</atem:invoke>")
        name = _NAME.match(body)
        if name is None or not closing:
            raise ValueError("no call")
        known = name[1] if name[1] in tools else name[1].partition(".")[2]
        yield known, dict(_arguments(body[name.end() :], properties(tools.get(known))))


def _arguments(text: str, declared: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    for part in text.split("<atem:parameter")[1:]:
        value, closing, _ = part.partition("</atem:parameter>")
        name = _NAME.match(value)
        if name is None or not closing:
            raise ValueError("no argument")
        yield name[1], typed(value[name.end() :], declared.get(name[1]))


_NAME = re.compile(r'\s+name="([^"]*)"\s*>')


class _State(Enum):
    HEADER = auto()
    """Before the text of a message, which has none of its own if nothing marks one."""
    BODY = auto()


class _Messages:
    """Tells thoughts from the rest; text without a header is content."""

    def __init__(self) -> None:
        self.warnings: list[Warning] = []
        self._state = _State.HEADER
        self._held = ""
        self._is_thought = False

    def feed(self, text: str) -> Iterator[Chunk]:
        self._held += text
        yield from self._advance(ended=False)

    def flush(self) -> Iterator[Chunk]:
        yield from self._advance(ended=True)

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        before = None
        while before != (self._state, len(self._held)):
            before = (self._state, len(self._held))
            if self._state is _State.HEADER:
                self._read_header(ended)
            else:
                yield from self._read_body(ended)

    def _read_header(self, ended: bool) -> None:
        header, message, rest = self._held.partition(_MESSAGE)
        is_header = _HEADER.fullmatch(header) is not None
        if message and is_header:
            self._held, self._state = rest, _State.BODY
            self._is_thought = _TO_SELF.search(header) is not None
        elif not is_header or (ended and not _BEGUN.match(header)):
            self._state, self._is_thought = _State.BODY, False
        elif ended:
            self._held = ""

    def _read_body(self, ended: bool) -> Iterator[Chunk]:
        found = _END.search(self._held)
        end = found.start() if found else len(self._held) - (0 if ended else unfinished(self._held, _BODY_ENDS))
        text, self._held = self._held[:end], self._held[end:]
        if text:
            yield Chunk(thinking=text) if self._is_thought else Chunk(content=text)
        if found is not None:
            self._held = self._held.removeprefix(found[0])
            self._state = _State.HEADER


_BODY_ENDS = (_START, *_ENDS)
_END = re.compile("|".join(map(re.escape, _BODY_ENDS)))
_TO_SELF = re.compile(r"\bto=self(?!\S)")
_BEGUN = re.compile(r"\s*(?:<\|start\|>|to=|assistant(?!\w)|\Z)")
_HEADER = re.compile(r"\s*(?:<[|\w]*>?)?\s*\w{0,16}\s*(?:t|to|to=[^\s<]{0,128})?\s*(?:<[|\w]*)?")
"""What a header may look like as far as it has come."""
