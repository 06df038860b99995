"""Answers of Qwen 3 and Qwen 3 VL: thoughts, then text with calls as JSON (spec cli §16.3).

<tool_call>{"name": "NAME", "arguments": {…}}</tool_call>
"""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers.base import OutputParser
from corral.parsers.tagged import Chained
from corral.parsers.thinking import ThinkingParser
from corral.parsers.tools import ToolCallParser

NAMES = ("qwen3", "qwen3-thinking", "qwen3-vl-instruct", "qwen3-vl-thinking")
WITHOUT_THINKING = ("qwen3-vl-instruct",)
CONTENT = "</think>"
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    thoughts = ThinkingParser("<think>", "</think>", inside=prompt.rstrip().endswith("<think>"))
    return Chained(thoughts, ToolCallParser("<tool_call>", tools)) if tools else thoughts
