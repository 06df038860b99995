"""Answers of GLM 4.7, GLM OCR and Laguna: thoughts, then text with calls (spec cli §16.3).

    <tool_call>NAME<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>

There may be line ends between the tags. A value is text; the tool's schema says what it is to be read as. Laguna may
also write a JSON object between the outer tags.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corral.messages import Json, Tool
from corral.parsers.base import OutputParser
from corral.parsers.calls import decode_object, named_call
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.thinking import ThinkingParser
from corral.parsers.typed import properties, typed

NAMES = ("glm-4.7", "glm-ocr", "laguna", "poolside-v1")
WITHOUT_THINKING = ("glm-ocr",)
CONTENT = "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_KEY, _KEY_END, _VALUE, _VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
MARKS = ("<think>", "</think>", _CALL, _CALL_END, _KEY, _KEY_END, _VALUE, _VALUE_END)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    known = {tool.name: tool for tool in tools}

    def read(text: str) -> Calls:
        return [_call(text.removeprefix(_CALL).removesuffix(_CALL_END).strip(), known)]

    return Chained(
        ThinkingParser("<think>", "</think>", inside=prompt.rstrip().endswith("<think>")),
        TaggedParser(tools, [Block(_CALL, _CALL_END, read)]),
    )


def _call(text: str, tools: Mapping[str, Tool]) -> tuple[str, dict[str, Json]]:
    if text.startswith("{"):
        found = named_call(decode_object(text) or {}, tools)
        if found is None:
            raise ValueError("no call")
        return found
    name, _, _ = text.partition(_KEY)
    name = name.strip()
    return name, dict(_arguments(text, properties(tools.get(name))))


def _arguments(text: str, declared: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """Keys and values in turns; `ValueError` where one of them is not closed."""
    at = text.find(_KEY)
    while at >= 0:
        key, at = _between(text, _KEY, _KEY_END, at)
        value, at = _between(text, _VALUE, _VALUE_END, at)
        yield key.strip(), typed(value, declared.get(key.strip()))
        at = text.find(_KEY, at)


def _between(text: str, opening: str, closing: str, at: int) -> tuple[str, int]:
    begin = text.index(opening, at) + len(opening)
    end = text.index(closing, begin)
    return text[begin:end], end + len(closing)
