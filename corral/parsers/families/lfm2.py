"""Answers of LFM2: thoughts, then text with calls as Python writes them (spec cli §16.3).

    <|tool_call_start|>[get_weather(city="Oslo"), clock()]<|tool_call_end|>

Models that were asked for it write a JSON object, or a list of them, instead.
"""

from collections.abc import Sequence

from corral.messages import Json, Tool
from corral.parsers.base import OutputParser
from corral.parsers.calls import decode, named_call
from corral.parsers.python_calls import python_calls
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.thinking import ThinkingParser

NAMES = ("lfm2", "lfm2-thinking")
WITHOUT_THINKING = ("lfm2",)
CONTENT = "</think>"
_CALL, _CALL_END = "<|tool_call_start|>", "<|tool_call_end|>"
MARKS = ("<think>", "</think>", _CALL, _CALL_END)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    known = {tool.name: tool for tool in tools}

    def read(text: str) -> Calls:
        inner = text.removeprefix(_CALL).removesuffix(_CALL_END).strip()
        return _json_calls(inner, known) if inner.lstrip("[ \n\t").startswith("{") else python_calls(inner)

    return Chained(
        ThinkingParser("<think>", "</think>", inside=prompt.rstrip().endswith("<think>")),
        TaggedParser(tools, [Block(_CALL, _CALL_END, read)]),
    )


def _json_calls(text: str, tools: dict[str, Tool]) -> Calls:
    value = decode(text)
    found: list[tuple[str, dict[str, Json]]] = []
    for item in value if isinstance(value, list) else [value]:
        call = named_call(item, tools) if isinstance(item, dict) else None
        if call is None:
            raise ValueError("no call")
        found.append(call)
    return found
