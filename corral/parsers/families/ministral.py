"""Answers of Mistral's models: thoughts, then text with calls (spec cli §16.3).

    [THINK]…[/THINK]some text[TOOL_CALLS]NAME[ARGS]{…}[TOOL_CALLS]NAME[ARGS]{…}

Between name and arguments there may be `[CALL_ID]` with an id. Older models write a list of objects that name the
tool behind one `[TOOL_CALLS]`, which is read as well.
"""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers.base import OutputParser
from corral.parsers.tagged import Chained
from corral.parsers.thinking import ThinkingParser
from corral.parsers.tools import ToolCallParser

NAMES = ("ministral",)
CONTENT = "[/THINK]"
MARKS = ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    thoughts = ThinkingParser("[THINK]", "[/THINK]", inside=prompt.rstrip().endswith("[THINK]"))
    calls = ToolCallParser("[TOOL_CALLS]", tools, skipped=r"\[CALL_ID\]\s*\w*")
    return Chained(thoughts, calls) if tools else thoughts
