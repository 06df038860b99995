"""Tool calls of a model that was given tools but does not keep to its own format.

An answer that as a whole is JSON objects, bare or fenced or in a list, each naming a declared tool and holding
arguments that fit its schema, is taken for calls. Anything less certain stays text.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

from corral.messages import Chunk, Json, Tool, ToolCall
from corral.parsers.base import Warning
from corral.parsers.calls import (
    ARGUMENT_KEYS,
    ObjectEnd,
    arguments_of,
    call_without_arguments,
    decode,
    decode_object,
)

MAX_DEPTH = 32
"""Levels of a schema that are compared; a deeper one does not fit."""


class RescueParser:
    """Holds an answer back as long as all of it may be calls of `tools`; it ends in calls or in content.

    Each character is looked at a fixed number of times, however many pieces the answer comes in.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.warnings: list[Warning] = []
        self._tools = {tool.name: tool for tool in tools}
        self._held = ""
        self._is_off = False
        self._gap = _Gap(0, "start")
        self._opening: _Opening | None = None
        self._end: ObjectEnd | None = None
        """The last two while an object has begun that has not ended."""

    def feed(self, text: str) -> Iterator[Chunk]:
        if self._is_off:
            if text:
                yield Chunk(content=text)
            return
        self._held += text
        if not self._may_be_calls():
            yield from self.release()

    def flush(self) -> Iterator[Chunk]:
        if self._is_off:
            return
        calls = self._calls()
        if calls is None:
            yield from self.release()
        else:
            self.warnings.append("tool_calls_rescued")
            yield Chunk(tool_calls=calls)

    def release(self) -> Iterator[Chunk]:
        """Gives up: what was held back is content, and so is all that comes."""
        self._is_off = True
        held, self._held = self._held, ""
        if held:
            yield Chunk(content=held)

    def _may_be_calls(self) -> bool:
        """Whether what has come of the answer allows it: its shape, each object, and the begun one's first key."""
        while True:
            if self._end is None or self._opening is None:
                brace = self._gap.find(self._held)
                if brace is None:
                    return self._gap.is_possible
                self._opening, self._end = _Opening(brace + 1, self._tools), ObjectEnd(brace)
            if not self._opening.is_possible(self._held):
                return False
            end = self._end.find(self._held)
            if end is None:
                return True
            value = decode_object(self._held[self._opening.brace : end])
            if value is None or self._call(value, 0) is None:
                return False
            self._gap, self._opening, self._end = _Gap(end, "between"), None, None

    def _calls(self) -> tuple[ToolCall, ...] | None:
        objects = _objects(self._held)
        if not objects:
            return None
        calls = [self._call(value, index) for index, value in enumerate(objects)]
        return tuple(call for call in calls if call is not None) if None not in calls else None

    def _call(self, value: dict[str, Json], index: int) -> ToolCall | None:
        silent = call_without_arguments(value, self._tools) if value.keys() <= _KEYS else ""
        if silent:
            return ToolCall(name=silent, index=index)
        inner = value.get("function")
        if isinstance(inner, dict):
            value = {key: item for key, item in value.items() if key not in ("type", "id", "index", "function")} | inner
        name = value.get("name")
        tool = self._tools.get(name) if isinstance(name, str) else None
        arguments = arguments_of(value)
        if (
            tool is None
            or arguments is None
            or len(value.keys() & set(ARGUMENT_KEYS)) != 1
            or not value.keys() <= _KEYS
        ):
            return None
        return ToolCall(name=tool.name, arguments=arguments, index=index) if fits(tool, arguments) else None


class _Gap:
    """Finds the brace that begins an object in a text that may still grow; looks at each character once.

    Before the first object there may be white space, the beginning of a fence and of a list; between two of them
    commas and the like, too, and the name of a language after each fence.
    """

    def __init__(self, at: int, state: str) -> None:
        self._at = at
        self._state = state
        self.is_possible = True
        """False once something stands in the gap that no calls have there."""

    def find(self, text: str) -> int | None:
        """The index of the brace; None while it has not come, or when it cannot come any more."""
        while self._at < len(text) and self.is_possible:
            character = text[self._at]
            if character == "{" and self._state not in ("tick", "two ticks"):
                return self._at
            following = _GAP_STATES.get((self._state, _kind(character)))
            self.is_possible = following is not None
            self._state = following or self._state
            self._at += 1
        return None


_GAP_STATES = {
    ("start", " "): "start",
    ("start", "`"): "tick",
    ("tick", "`"): "two ticks",
    ("two ticks", "`"): "fence",
    ("fence", "w"): "fence",
    ("fence", " "): "after fence",
    ("after fence", " "): "after fence",
    **{(state, "["): "list" for state in ("start", "fence", "after fence")},
    ("list", " "): "list",
    **{(f"between{ticks}", kind): "between" for ticks in ("", " 1", " 2", " 3") for kind in " ,[]"},
    **{("language", kind): "between" for kind in " ,[]"},
    ("between", "`"): "between 1",
    ("between 1", "`"): "between 2",
    ("between 2", "`"): "between 3",
    ("between 3", "`"): "between 3",
    ("language", "`"): "between 1",
    ("between 3", "w"): "language",
    ("language", "w"): "language",
}
"""What follows in a gap by where it is and the kind of a character; the numbers count backquotes."""


def _kind(character: str) -> str:
    if character in "`[]":
        return character
    if character in ",;":
        return ","
    return " " if character.isspace() else "w" if character.isalnum() or character == "_" else ""


class _Opening:
    """Whether the first key of an object, and the tool's name under it, may be a call's; looks at characters once."""

    def __init__(self, at: int, tools: Collection[str]) -> None:
        self.brace = at - 1
        self._at = at
        self._tools = tools
        self._state: Literal["before key", "key", "before colon", "before name", "name", "open"] = "before key"
        self._text = ""
        """What has come of the key or name."""

    def is_possible(self, text: str) -> bool:
        while self._at < len(text) and self._state != "open":
            character = text[self._at]
            self._at += 1
            if character.isspace() and self._state in ("before key", "before colon", "before name"):
                continue
            if not self._takes(character):
                return False
        return True

    def _takes(self, character: str) -> bool:
        """Goes on by a character. What is "open" is decided by the whole object."""
        match self._state, character:
            case ("before key", '"'):
                self._state = "key"
            case ("before colon", ":"):
                self._state = "before name"
            case ("before name", '"'):
                self._state, self._text = "name", ""
            case ("key", '"'):
                self._state = "before colon" if self._text == "name" else "open"
                return self._text in _KEYS
            case ("name", '"'):
                self._state = "open"
                return self._text in self._tools
            case ("key" | "name", _) if character != "\\":
                self._text += character
                return self._state == "key" or any(name.startswith(self._text) for name in self._tools)
            case _:
                self._state = "open"
        return True


_KEYS = {"name", "type", "id", "index", "function", *ARGUMENT_KEYS}
_FENCE = re.compile(r"```(\w*)")
_BETWEEN = re.compile(r"[\s,;]*")
_DECODER = json.JSONDecoder(strict=False)


def _objects(answer: str) -> list[dict[str, Json]] | None:
    """The objects an answer consists of, and of nothing else but separators, fences and lists; else None."""
    found: list[dict[str, Json]] = []
    is_fenced = False
    at = _BETWEEN.match(answer).end()  # type: ignore[union-attr]  # matches the empty text
    while at < len(answer):
        fence = _FENCE.match(answer, at)
        if fence is not None:
            if is_fenced and fence[1]:
                return None
            is_fenced, at = not is_fenced, fence.end()
        else:
            inner, at = _values(answer, at)
            if not inner:
                return None
            found += inner
        at = _BETWEEN.match(answer, at).end()  # type: ignore[union-attr]
    return None if is_fenced else found


def _values(answer: str, at: int) -> tuple[list[dict[str, Json]] | None, int]:
    try:
        _, end = _DECODER.raw_decode(answer, at)
        value = decode(answer[at:end])
    except (ValueError, RecursionError):
        return None, at
    values = value if isinstance(value, list) else [value]
    return (values if all(isinstance(item, dict) for item in values) else None), end


def fits(tool: Tool, arguments: dict[str, Json]) -> bool:
    """Whether all required arguments are there and all declared ones have a declared type.

    Where some are declared, `required` may name others by mistake.
    """
    return _fits({**tool.parameters, "type": "object"}, arguments, MAX_DEPTH)


def _fits(schema: Any, value: Json, depth: int) -> bool:
    if not isinstance(schema, dict):
        return True
    if depth == 0:
        return False
    kinds = schema.get("type") or []
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds and not any(_is_kind(value, kind) for kind in kinds):
        return False
    allowed = schema.get("enum")
    if isinstance(allowed, list) and allowed and value not in allowed:
        return False
    alternatives = schema.get("anyOf")
    if isinstance(alternatives, list) and not any(_fits(option, value, depth - 1) for option in alternatives or [{}]):
        return False
    if isinstance(value, dict):
        return _members_fit(schema, value, depth)
    return not isinstance(value, list) or all(_fits(schema.get("items"), item, depth - 1) for item in value)


def _members_fit(schema: dict[str, Any], value: dict[str, Json], depth: int) -> bool:
    required, declared = schema.get("required"), schema.get("properties")
    properties = declared if isinstance(declared, dict) else {}
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    if any(name not in value for name in names if name in properties or not properties):
        return False
    return all(_fits(properties[name], member, depth - 1) for name, member in value.items() if name in properties)


def _is_kind(value: Json, kind: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "null":
            return value is None
        case _:
            return True
