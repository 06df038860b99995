"""Answers of Qwen 3 Coder, which does not think (spec cli §16.3)."""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers import xml_calls
from corral.parsers.base import OutputParser

NAMES = ("qwen3-coder",)
MARKS = xml_calls.MARKS


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    return xml_calls.xml_call_parser(tools)
