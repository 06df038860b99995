"""Answers of Cohere's Command models: each part between two marks of its own (spec cli §16.3).

    <|START_THINKING|>…<|END_THINKING|><|START_TEXT|>…<|END_TEXT|>
    <|START_ACTION|>[{"tool_call_id": "0", "tool_name": "NAME", "parameters": {…}}]<|END_ACTION|>

Earlier models say RESPONSE where later ones say TEXT.
"""

from collections.abc import Sequence

from corral.messages import Json, Tool
from corral.parsers.base import OutputParser
from corral.parsers.calls import arguments_of, decode
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.thinking import ThinkingParser

NAMES = ("cohere",)
CONTENT = "<|END_THINKING|>"
_THOUGHT = "<|START_THINKING|>"
_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_AROUND_TEXT = ("<|START_TEXT|>", "<|END_TEXT|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
MARKS = (_THOUGHT, CONTENT, _ACTION, _ACTION_END, *_AROUND_TEXT)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    return Chained(
        ThinkingParser(_THOUGHT, CONTENT, inside=prompt.rstrip().endswith(_THOUGHT)),
        TaggedParser(tools, [Block(_ACTION, _ACTION_END, _calls_in)], ignored=_AROUND_TEXT),
    )


def _calls_in(text: str) -> Calls:
    value = decode(text.removeprefix(_ACTION).removesuffix(_ACTION_END))
    return [_call(item) for item in (value if isinstance(value, list) else [value])]


def _call(value: Json) -> tuple[str, dict[str, Json]]:
    name = value.get("tool_name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str):
        raise ValueError("no call")
    arguments = arguments_of(value) if value.get("parameters") else {}
    if arguments is None:
        raise ValueError("no arguments")
    return name, arguments
