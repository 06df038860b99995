"""Tool calls after a tag, as JSON, whatever the model's exact format (spec cli §16.1).

Differs from the specification where text would be lost: what follows the tag and is no call is content, tag
included; so is what stands between and after calls, except closing tags, separators and white space; that stays where
it parts two words.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from corral.messages import Chunk, Json, Tool, ToolCall
from corral.parsers.base import Warning, unfinished
from corral.parsers.calls import ObjectEnd, decode_object, named_call, own_call

MAX_GAP = 64
"""Characters, besides a tool's name, between tag and JSON object. More than that is prose that mentions the tag."""


class _State(Enum):
    LOOKING = auto()
    """For the tag; the text before it is content."""
    CALLING = auto()
    """An object is to come."""
    AFTER_CALL = auto()
    """What closes a call goes; then another object may come."""
    OFF = auto()
    """All that comes is content."""


class ToolCallParser:
    """Reads calls of `tools` after `tag`; with the tag `{` or `[`, only when the answer begins with it.

    `skipped`: a pattern of what else may stand between tag and object, and goes.
    """

    def __init__(self, tag: str, tools: Sequence[Tool], *, skipped: str = r"(?!)") -> None:
        self.warnings: list[Warning] = []
        self._tools = {tool.name: tool for tool in tools if tool.name}
        self._bare = tag in ("{", "[")
        self._skipped = re.compile(skipped)
        # The bracket of a list belongs to the tag of some templates; models put other white space before it.
        self._tag = tag if self._bare else tag.rstrip("[ \n\t")
        names = sorted(map(re.escape, self._tools), key=len, reverse=True)
        self._names = re.compile(rf"{_PREFIX}(?<!\w)({'|'.join(names)})(?!\w)")
        self._reach = MAX_GAP + max(map(len, self._tools), default=0)
        self._state = _State.LOOKING
        self._held = ""
        self._lead = ""
        """What came before `_held` and is content if no call comes: the tag, or white space before a bare object."""
        self._end: ObjectEnd | None = None
        self._space: list[str] = []
        """White space after a call, which stays where it is all that parts two words."""
        self._ends_in_word = False
        """Whether the content so far does."""
        self._count = 0

    def feed(self, text: str) -> Iterator[Chunk]:
        if self._state is _State.OFF:
            if text:
                yield Chunk(content=text)
            return
        self._held += text
        yield from self._watched(self._advance(ended=False))

    def flush(self) -> Iterator[Chunk]:
        yield from self._watched(self._advance(ended=True))

    def _watched(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.content:
                self._ends_in_word = not chunk.content[-1].isspace()
            yield chunk

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        before = None
        while before != (self._state, len(self._held)):
            before = (self._state, len(self._held))
            match self._state:
                case _State.LOOKING if self._bare:
                    self._look_at_start(ended)
                case _State.LOOKING:
                    yield from self._look(ended)
                case _State.CALLING:
                    yield from self._call(ended)
                case _State.AFTER_CALL:
                    self._leave_call(ended)
                case _State.OFF:
                    held, self._held = self._held, ""
                    yield from _content(held)

    def _look(self, ended: bool) -> Iterator[Chunk]:
        text, tag, rest = self._held.partition(self._tag)
        certain = len(text) if tag or ended else len(text) - unfinished(text, (self._tag,))
        yield from _content(text[:certain])
        self._held = rest if tag else text[certain:]
        if tag:
            self._state, self._lead = _State.CALLING, tag

    def _look_at_start(self, ended: bool) -> None:
        text = self._held.lstrip()
        if text.startswith(("{", "[")):
            self._lead, self._held = self._held[: -len(text)], text
            self._state = _State.CALLING
        elif text or ended:
            self._state = _State.OFF

    def _call(self, ended: bool) -> Iterator[Chunk]:
        start = self._held.find("{", 0, self._reach + 1)
        if start < 0:
            if ended or len(self._held) > self._reach:
                yield from self._give_up(0)
            return
        self._end = self._end or ObjectEnd(start)
        end = self._end.find(self._held)
        if end is None:
            if ended:
                yield from self._give_up(len(self._held))
            return
        gap = self._held[:start]
        name = self._names.search(gap)
        found = self._read(decode_object(self._held[start:end]), name)
        if found is None:
            yield from self._give_up(end)
            return
        if name is not None:
            gap = gap[: name.start()] + gap[name.end() :]
        prose = self._prose(gap)
        yield from _content(self._lead + prose if prose and self._lead.isspace() else prose)
        yield Chunk(tool_calls=(ToolCall(name=found[0], arguments=found[1], index=self._count),))
        self._count += 1
        self._go_on(end, _State.AFTER_CALL)

    def _read(self, value: dict[str, Json] | None, before: re.Match[str] | None) -> tuple[str, dict[str, Json]] | None:
        """The call an object makes: it names the tool itself, or the tool's name stands before it."""
        if value is None or before is None:
            return None if value is None else named_call(value, self._tools)
        inner = value.get(before[1])
        return own_call(value, self._tools) or (before[1], inner if isinstance(inner, dict) else value)

    def _give_up(self, end: int) -> Iterator[Chunk]:
        """No call comes of the text up to `end`: it is content. What follows is looked at afresh."""
        text = self._lead + self._held[:end]
        if self._names.search(text) if self._bare else self._tag in text:
            self.warnings.append("tool_call_unparsed")
        yield from _content(text)
        self._go_on(end, _State.OFF if self._bare else _State.LOOKING)

    def _leave_call(self, ended: bool) -> None:
        closing = _CLOSING.match(self._held)
        dropped = closing[0] if closing else ""
        self._held = self._held[len(dropped) :]
        marks = dropped.rstrip()
        if marks:
            self._space = []
        if len(marks) < len(dropped):
            self._space.append(dropped[len(marks) :])
        if _UNFINISHED_CLOSING.fullmatch(self._held):
            if ended and len(self._held) > 1:
                self._held = ""
            if not ended:
                return
        if self._held:
            self._state = _State.CALLING
            self._lead = "".join(self._space) if self._ends_in_word else ""

    def _go_on(self, end: int, state: _State) -> None:
        self._held, self._lead, self._end, self._state = self._held[end:], "", None, state
        self._space = []

    def _prose(self, gap: str) -> str:
        """What a model says between tag and object, or between calls, that is neither tag nor punctuation."""
        prose = self._skipped.sub("", gap if self._bare else gap.replace(self._tag, ""))
        return prose if _MARKUP.sub("", prose) else ""


_PREFIX = r"(?:functions?[.=:]|call:)?"
"""What some models write before a tool's name."""

_CLOSING = re.compile(
    r"(?:[\s,;\])}]|</[^<>\s]{1,40}>|<\|/[^<>\s|]{1,40}\|>|<\|[^<>\s|]{0,40}(?:end|END)[^<>\s|]{0,40}\|>"
    r"|\[/[A-Z_]{1,40}\]|```\w{0,20}(?=[^\w`]))*"
)
_UNFINISHED_CLOSING = re.compile(r"<(?:[/|][^<>\s]{0,82})?|\[(?:/[A-Z_]{0,40})?|`{1,2}|```\w{0,20}")
_MARKUP = re.compile(r"<[^<>\s]*>|\[/?[A-Z_]+\]|```\w*|[\s,;:.=()\[\]{}]+")


def _content(text: str) -> Iterator[Chunk]:
    if text:
        yield Chunk(content=text)
