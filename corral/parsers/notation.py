"""The notation of Gemma's calls: keys without quotes, texts with a mark of their own on both sides.

call:NAME{city:<mark>Oslo<mark>,days:[1,2],near:{sea:true}}
"""

import re

from corral.messages import Json
from corral.parsers.calls import MAX_NESTING, decode
from corral.parsers.scanning import after_value, skip_space


class Notation:
    """Reads calls whose texts stand between two `quote` marks."""

    def __init__(self, quote: str) -> None:
        self._quote = quote

    def call(self, text: str) -> tuple[str, dict[str, Json]]:
        """The tool's name and the arguments; `ValueError` where that is not in the notation."""
        name, brace, _ = text.strip().removeprefix("call:").partition("{")
        if not brace:
            raise ValueError("no arguments")
        value, end = self._value(text, text.find("{"), 0)
        if not isinstance(value, dict) or text[end:].strip():
            raise ValueError("more than arguments")
        return name.strip(), value

    def _value(self, text: str, at: int, depth: int) -> tuple[Json, int]:
        """The value that begins at a place, and where it ends. `ValueError` when there is none."""
        if depth > MAX_NESTING:
            raise ValueError("nested too deeply")
        at = skip_space(text, at)
        if text.startswith(self._quote, at):
            end = text.index(self._quote, at + len(self._quote))
            return text[at + len(self._quote) : end], end + len(self._quote)
        if text.startswith("{", at):
            return self._members(text, at + 1, depth)
        if text.startswith("[", at):
            return self._items(text, at + 1, depth)
        word = _WORD.match(text, at)
        if word is None:
            raise ValueError("no value")
        return decode(word[0]), word.end()

    def _members(self, text: str, at: int, depth: int) -> tuple[Json, int]:
        found: dict[str, Json] = {}
        at = skip_space(text, at)
        while not text.startswith("}", at):
            key = _KEY.match(text, at)
            if key is None or not text.startswith(":", key.end()):
                raise ValueError("no key")
            name = key[0].strip().removeprefix(self._quote).removesuffix(self._quote)
            found[name], at = self._value(text, key.end() + 1, depth + 1)
            at = after_value(text, at, "}")
        return found, at + 1

    def _items(self, text: str, at: int, depth: int) -> tuple[Json, int]:
        found: list[Json] = []
        at = skip_space(text, at)
        while not text.startswith("]", at):
            value, at = self._value(text, at, depth + 1)
            found.append(value)
            at = after_value(text, at, "]")
        return found, at + 1


_KEY = re.compile(r"[^:{}\[\],]+")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,{}\[\]]+', re.DOTALL)
"""A number, `true`, `false`, `null`, or a text as JSON has it, which some models write."""
