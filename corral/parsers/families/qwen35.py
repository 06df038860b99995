"""Answers of Qwen 3.5 and of those that think and call as it does: Ornith and Nemotron 3 (spec cli §16.3)."""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers import xml_calls
from corral.parsers.base import OutputParser

NAMES = ("qwen3.5", "qwen3.8", "ornith", "nemotron-3-nano", "nemotron-3.5-nano")
CONTENT = "</think>"
MARKS = xml_calls.MARKS


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    return xml_calls.xml_call_parser(tools, inside=prompt.rstrip().endswith("<think>"))
