"""Answers that are content as they are, for models that say so (spec cli §16.3)."""

from collections.abc import Sequence

from corral.messages import Tool
from corral.parsers.base import OutputParser, PlainText

NAMES = ("passthrough",)
WITHOUT_TOOLS = NAMES
MARKS: tuple[str, ...] = ()


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    return PlainText()
