"""Tool calls as JSON: finding an object's end, reading it, and what call it amounts to."""

import json
import math
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from corral.golang.gojson import is_deeper
from corral.messages import Json, Tool

NAME_KEYS = ("name", "tool_name", "function", "tool")
ARGUMENT_KEYS = ("arguments", "parameters", "args")


class ObjectEnd:
    """Finds where the JSON object at `start` ends in a text that may still grow; looks at each character once."""

    def __init__(self, start: int) -> None:
        self._at = start
        self._depth = 0
        self._quoted = False

    def find(self, text: str) -> int | None:
        """The index after the closing brace, or None while it has not come. A string that never ends has no end."""
        while True:
            match = (_QUOTED if self._quoted else _UNQUOTED).search(text, self._at)
            if match is None:
                self._at = len(text)
                return None
            if match[0] == "\\":
                if match.end() == len(text):
                    self._at = match.start()
                    return None
                self._at = match.end() + 1
                continue
            self._at = match.end()
            if match[0] == '"':
                self._quoted = not self._quoted
                continue
            self._depth += 1 if match[0] == "{" else -1
            if self._depth == 0:
                return self._at


_QUOTED = re.compile(r'["\\]')
_UNQUOTED = re.compile(r'["{}]')


MAX_NESTING = 100
"""Levels of objects and lists in a model's JSON. Deeper ones are no call."""


def decode(text: str) -> Json:
    """The JSON value a model wrote; raw line ends in strings are allowed. `ValueError` when it is none.

    What comes back can be encoded again: no NaN, no infinity, no half of a surrogate pair.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = _decode_leniently(text)
    if is_deeper(value, MAX_NESTING):
        raise ValueError("nested too deeply")
    return value


def _decode_leniently(text: str) -> Json:
    try:
        value = json.loads(text, strict=False, parse_constant=_refuse, parse_float=_finite)
        msgspec.json.encode(value)
    except (UnicodeError, RecursionError, OverflowError) as error:
        raise ValueError("not JSON") from error
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is out of range")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def decode_object(text: str) -> dict[str, Json] | None:
    try:
        value = decode(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def own_call(value: dict[str, Json], tools: Container[str]) -> tuple[str, dict[str, Json]] | None:
    """The call of an object that names a tool itself, beside its arguments."""
    for key in NAME_KEYS:
        name = value.get(key)
        if isinstance(name, str) and name in tools:
            arguments = arguments_of(value)
            return None if arguments is None else (name, arguments)
    return None


def named_call(value: dict[str, Json], tools: Mapping[str, Tool]) -> tuple[str, dict[str, Json]] | None:
    """The call an object stands for: it names a tool beside its arguments, or holds them under the tool's name.

    An object inside it may do so instead, the first one counts (spec cli §16.1). Without arguments it is a call of a
    tool that requires none.
    """
    for holder in _objects_in(value):
        found = own_call(holder, tools)
        if found is not None:
            return found
        for name, under in holder.items():
            if name in tools and isinstance(under, dict):
                return name, under
    name = call_without_arguments(value, tools)
    return (name, {}) if name else None


def call_without_arguments(value: dict[str, Json], tools: Mapping[str, Tool]) -> str:
    """The tool that an object calls without arguments, where the tool requires none; empty for any other object.

    They may be left out, null, or an empty text or list. The object holds nothing else, and no call is looked for
    inside it but under `function`.
    """
    inner = value.get("function")
    if isinstance(inner, dict):
        value = {key: item for key, item in value.items() if key != "function"} | inner
    names = [item for key, item in value.items() if key in NAME_KEYS]
    if not names and len(value) == 1 and all(map(_is_nothing, value.values())):
        names = [*value]  # nothing under the tool's name
    elif not value.keys() <= _KEYS_OF_CALLS or not all(_is_nothing(value.get(key)) for key in ARGUMENT_KEYS):
        return ""
    match names:
        case [str(name)] if name in tools and not tools[name].parameters.get("required"):
            return name
        case _:
            return ""


_KEYS_OF_CALLS = {*NAME_KEYS, *ARGUMENT_KEYS, "type", "id", "index"}


def _is_nothing(arguments: Json) -> bool:
    return arguments in (None, "", []) or (isinstance(arguments, str) and arguments.strip() in ("", "null", "[]"))


def arguments_of(holder: dict[str, Json]) -> dict[str, Json] | None:
    """The arguments object beside a tool's name; a string that holds one will do."""
    for key in ARGUMENT_KEYS:
        arguments = holder.get(key)
        if isinstance(arguments, dict):
            return arguments
        if isinstance(arguments, str):
            return decode_object(arguments)
    return None


def _objects_in(value: Any) -> Iterator[dict[str, Json]]:
    """Every object in a value, outer ones first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects_in(inner)
