"""Tool calls of a model that was given tools but does not keep to its own format.

An answer that as a whole is JSON objects, bare or fenced or in a list, each naming a declared tool and holding
arguments that fit its schema, is taken for calls. Anything less certain stays text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

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
    """Holds an answer back as long as all of it may be calls of `tools`; it ends in calls or in content."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.warnings: list[Warning] = []
        self._tools = {tool.name: tool for tool in tools}
        self._held = ""
        self._is_off = False
        self._end: ObjectEnd | None = None
        self._at = 0
        """Where the last object that is a call ended."""

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
            begin = (_NEXT if self._at else _BEGIN).match(self._held, self._at)
            if begin is None:
                unfinished = _UNFINISHED_NEXT if self._at else _UNFINISHED_BEGIN
                return unfinished.fullmatch(self._held, self._at) is not None
            if not self._begins_as_call(begin.end()):
                return False
            self._end = self._end or ObjectEnd(begin.end() - 1)
            end = self._end.find(self._held)
            if end is None:
                return True
            value = decode_object(self._held[begin.end() - 1 : end])
            if value is None or self._call(value, 0) is None:
                return False
            self._at, self._end = end, None

    def _begins_as_call(self, at: int) -> bool:
        """Whether the first key after a brace may be a call's, and what is there of a tool's name one of them."""
        key = _FIRST_KEY.match(self._held, at)
        if key is None:
            return True
        name = _NAME.match(self._held, key.end()) if key[1] == "name" else None
        if name is None or (name.end() < len(self._held) and not name[2]):
            return key[1] in _KEYS
        return name[1] in self._tools if name[2] else any(tool.startswith(name[1]) for tool in self._tools)

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


_KEYS = {"name", "type", "id", "index", "function", *ARGUMENT_KEYS}
_BEGIN = re.compile(r"\s*(?:```\w*\s*)?(?:\[\s*)?\{")
_UNFINISHED_BEGIN = re.compile(r"\s*(?:`{0,2}|```\w*\s*(?:\[\s*)?|\[\s*)")
_BETWEEN_CALLS = r"[\s,;\[\]`]*(?:(?<=```)\w+[\s,;\[\]`]*)*"
_NEXT = re.compile(_BETWEEN_CALLS + r"\{")
_UNFINISHED_NEXT = re.compile(_BETWEEN_CALLS)
_FIRST_KEY = re.compile(r'\s*"([^"\\]*)"')
_NAME = re.compile(r'\s*:\s*"([^"\\]*)("?)')
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
    """Whether all required arguments are there and all declared ones have a declared type."""
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
    required = schema.get("required")
    properties = schema.get("properties")
    if isinstance(required, list) and any(name not in value for name in required if isinstance(name, str)):
        return False
    if not isinstance(properties, dict):
        return True
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
