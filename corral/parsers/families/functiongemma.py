"""Answers of FunctionGemma, which does not think (spec cli §16.3).

    <start_function_call>call:NAME{city:<escape>Oslo<escape>}<end_function_call>

Where a result would follow, the model writes the mark that begins one.
"""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers.base import OutputParser
from corral.parsers.notation import Notation
from corral.parsers.tagged import Block, Calls, TaggedParser

NAMES = ("functiongemma",)
_CALL, _CALL_END = "<start_function_call>", "<end_function_call>"
_QUOTE, _RESPONSE = "<escape>", "<start_function_response>"
MARKS = (_CALL, _CALL_END, _QUOTE, _RESPONSE)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    return TaggedParser(tools, [Block(_CALL, _CALL_END, _calls_in)], ignored=(_RESPONSE,))


def _calls_in(text: str) -> Calls:
    return [Notation(_QUOTE).call(text.removeprefix(_CALL).removesuffix(_CALL_END))]
