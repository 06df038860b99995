"""Tool calls in tags, as Qwen 3 Coder, Qwen 3.5 and Nemotron 3 write them; thoughts before them (spec cli §16.3).

    <tool_call>
    <function=NAME>
    <parameter=KEY>
    value
    </parameter>
    </function>
    </tool_call>

Some models leave the outer tag out. A value is text; the tool's schema says what it is to be read as.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corral.messages import Chunk, Json, Tool, ToolCall
from corral.parsers.base import Warning, unfinished
from corral.parsers.calls import decode
from corral.parsers.thinking import ThinkingParser

_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
MARKS = ("<think>", "</think>", _CALL, _CALL_END)
_OPENINGS = (_CALL, _FUNCTION)


class XmlCallParser:
    """Reads thoughts, then text with calls of `tools` in it; a call that cannot be read is content."""

    def __init__(self, tools: Sequence[Tool], *, inside: bool = False) -> None:
        self.warnings: list[Warning] = []
        self._thinking = ThinkingParser("<think>", "</think>", inside=inside)
        self._tools = {tool.name: tool for tool in tools}
        self._held = ""
        self._closing = ""
        """What ends the call that is being read; empty outside of one."""
        self._looked = 0
        """How much of `_held` has been searched for it."""
        self._count = 0

    def feed(self, text: str) -> Iterator[Chunk]:
        yield from self._read(self._thinking.feed(text))

    def flush(self) -> Iterator[Chunk]:
        yield from self._read(self._thinking.flush())
        yield from self._advance(ended=True)

    def _read(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if not chunk.content:
                yield chunk
                continue
            self._held += chunk.content
            yield from self._advance(ended=False)

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        while True:
            if self._closing:
                end = self._held.find(self._closing, self._looked)
                if end < 0 and not ended:
                    self._looked = max(0, len(self._held) - len(self._closing))
                    return
                end = len(self._held) if end < 0 else end + len(self._closing)
                call, self._held = self._held[:end], self._held[end:]
                self._closing, self._looked = "", 0
                yield from self._called(call)
                continue
            at, opening = _first(self._held, _OPENINGS)
            if opening:
                yield from _content(self._held[:at].rstrip())
                self._held = self._held[at:]
                self._closing = _CALL_END if opening == _CALL else _FUNCTION_END
                self._looked = 0
                continue
            if self._count:
                self._held = self._held.lstrip().removeprefix(_CALL_END)
            certain = len(self._held) - (0 if ended else unfinished(self._held, (*_OPENINGS, _CALL_END)))
            if not ended:
                certain = len(self._held[:certain].rstrip())
            yield from _content(self._held[:certain])
            self._held = self._held[certain:]
            return

    def _called(self, text: str) -> Iterator[Chunk]:
        calls = list(self._calls_in(text))
        if not calls or any(name not in self._tools for name, _ in calls):
            self.warnings.append("tool_call_unparsed")
            yield from _content(text)
            return
        for name, arguments in calls:
            yield Chunk(tool_calls=(ToolCall(name=name, arguments=arguments, index=self._count),))
            self._count += 1

    def _calls_in(self, text: str) -> Iterator[tuple[str, dict[str, Json]]]:
        """The name and arguments of each function; nothing more after one that is not closed."""
        at = text.find(_FUNCTION)
        while at >= 0:
            name, mark, _ = text[at + len(_FUNCTION) :].partition(">")
            begin = at + len(_FUNCTION) + len(name) + 1
            end = text.find(_FUNCTION_END, begin)
            if not mark or end < 0:
                return
            tool = self._tools.get(name.strip())
            yield name.strip(), dict(_parameters(text[begin:end], _properties(tool)))
            at = text.find(_FUNCTION, end)


def _parameters(text: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    at = text.find(_PARAMETER)
    while at >= 0:
        name_end = text.find(">", at)
        end = text.find(_PARAMETER_END, name_end)
        if name_end < 0 or end < 0:
            return
        name = text[at + len(_PARAMETER) : name_end].strip()
        yield name, _value(text[name_end + 1 : end].removeprefix("\n").removesuffix("\n"), properties.get(name))
        at = text.find(_PARAMETER, end)


def _properties(tool: Tool | None) -> Mapping[str, Any]:
    found = tool.parameters.get("properties") if tool is not None else None
    return found if isinstance(found, dict) else {}


def _value(text: str, declared: Any) -> Json:
    """The value as the schema declares it; text where it is none of that."""
    if text.strip().lower() == "null":
        return None
    kinds = _kinds(declared)
    if "boolean" in kinds:
        lowered = text.strip().lower()
        if lowered in ("true", "false"):
            return lowered == "true"
        if kinds == {"boolean"}:
            return False
    try:
        value = decode(text)
    except ValueError:
        return text
    if isinstance(value, float) and value.is_integer() and kinds & {"integer", "number"}:
        value = int(value)
    return value if _JSON_KINDS.get(type(value), set()) & kinds else text


_JSON_KINDS = {int: {"integer", "number"}, float: {"number"}, list: {"array"}, dict: {"object"}}
"""Types of JSON Schema that a value which is no text may be declared as."""


def _kinds(declared: Any) -> set[str]:
    """The types that a property's schema allows."""
    if not isinstance(declared, dict):
        return set()
    found = declared.get("type")
    kinds = {found} if isinstance(found, str) else set()
    if isinstance(found, list):
        kinds |= {kind for kind in found if isinstance(kind, str)}
    for one in declared.get("anyOf") or () if isinstance(declared.get("anyOf"), list) else ():
        if isinstance(one, dict) and isinstance(one.get("type"), str):
            kinds.add(one["type"])
    return kinds


def _first(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Where the first of the marks stands, and which; (-1, "") where none does."""
    found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    return min(found, default=(-1, ""))


def _content(text: str) -> Iterator[Chunk]:
    if text:
        yield Chunk(content=text)
