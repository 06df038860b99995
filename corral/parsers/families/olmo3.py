"""Answers of OLMo 3: thoughts, or text with calls as Python writes them, one a line (spec cli §16.3).

<function_calls>get_weather(city="Oslo")
clock()</function_calls>
"""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers.base import OutputParser
from corral.parsers.python_calls import python_calls
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.thinking import ThinkingParser

NAMES = ("olmo3", "olmo3-think")
WITHOUT_THINKING = ("olmo3",)
WITHOUT_TOOLS = ("olmo3-think",)
CONTENT = "</think>"
_CALLS, _CALLS_END = "<function_calls>", "</function_calls>"
MARKS = ("<think>", "</think>", _CALLS, _CALLS_END)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    return Chained(
        ThinkingParser("<think>", "</think>", inside=prompt.rstrip().endswith("<think>")),
        TaggedParser(tools, [Block(_CALLS, _CALLS_END, _calls_in)]),
    )


def _calls_in(text: str) -> Calls:
    return python_calls(text.removeprefix(_CALLS).removesuffix(_CALLS_END))
