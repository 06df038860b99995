"""Tool calls in Python's notation, as LFM2 and OLMo 3 write them (spec cli §16.3). Nothing is run.

[get_weather(city="Oslo", days=[1, 2]), clock()]
"""

import re

from corral.messages import Json
from corral.parsers.calls import MAX_NESTING, decode
from corral.parsers.scanning import after_value, skip_space


def python_calls(text: str) -> list[tuple[str, dict[str, Json]]]:
    """The calls in a list, or one after the other with commas or white space between; `ValueError` for anything else.

    All arguments have names. Python's constants and JSON's are both read.
    """
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    found: list[tuple[str, dict[str, Json]]] = []
    at = skip_space(text, 0)
    while at < len(text):
        name = _CALLED.match(text, at)
        if name is None:
            raise ValueError("no call")
        arguments, at = _arguments(text, name.end())
        found.append((name[1], arguments))
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # matches the empty text
    return found


_BETWEEN = re.compile(r"[\s,;]*")
_CALLED = re.compile(r"([\w.-]+)\s*\(")
_NAMED = re.compile(r"\s*(\w+)\s*=")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_WORD = re.compile(r"[\w.+-]+")
_CONSTANTS: dict[str, Json] = {"True": True, "False": False, "None": None}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "", "/": "/"}


def _arguments(text: str, at: int) -> tuple[dict[str, Json], int]:
    found: dict[str, Json] = {}
    at = skip_space(text, at)
    while not text.startswith(")", at):
        name = _NAMED.match(text, at)
        if name is None:
            raise ValueError("an argument without a name")
        found[name[1]], at = _value(text, name.end(), 0)
        at = after_value(text, at, ")")
    return found, at + 1


def _value(text: str, at: int, depth: int) -> tuple[Json, int]:
    """The value that begins at a place, and where it ends. `ValueError` when there is none."""
    if depth > MAX_NESTING:
        raise ValueError("nested too deeply")
    at = skip_space(text, at)
    string = _STRING.match(text, at)
    if string is not None:
        value = _ESCAPE.sub(_unescaped, string[0][1:-1])
        value.encode()  # half of a surrogate pair is a ValueError
        return value, string.end()
    if text.startswith(("[", "("), at):
        return _items(text, at, depth)
    if text.startswith("{", at):
        return _members(text, at, depth)
    word = _WORD.match(text, at)
    if word is None:
        raise ValueError("no value")
    return _CONSTANTS[word[0]] if word[0] in _CONSTANTS else decode(word[0]), word.end()


def _items(text: str, at: int, depth: int) -> tuple[Json, int]:
    found: list[Json] = []
    closing = _CLOSING[text[at]]
    at = skip_space(text, at + 1)
    while not text.startswith(closing, at):
        value, at = _value(text, at, depth + 1)
        found.append(value)
        at = after_value(text, at, closing)
    return found, at + 1


def _members(text: str, at: int, depth: int) -> tuple[Json, int]:
    found: dict[str, Json] = {}
    at = skip_space(text, at + 1)
    while not text.startswith("}", at):
        key, at = _value(text, at, depth + 1)
        at = skip_space(text, at)
        if not isinstance(key, str) or not text.startswith(":", at):
            raise ValueError("no key")
        found[key], at = _value(text, at + 1, depth + 1)
        at = after_value(text, at, "}")
    return found, at + 1


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits:
        return chr(int(digits, 16))
    return _ESCAPED.get(match[4], match[4] if match[4] in "\\'\"" else match[0])
