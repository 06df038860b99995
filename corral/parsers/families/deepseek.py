"""Answers of DeepSeek 3.1 and of Cogito: thoughts, then text with calls behind it (spec cli §16.3).

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>

Cogito, as DeepSeek's first models, writes `function<｜tool▁sep｜>NAME` and the arguments as a fenced block of JSON.
"""

from collections.abc import Iterator, Sequence

from corral.messages import Json, Tool
from corral.parsers.base import OutputParser
from corral.parsers.calls import decode_object
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.thinking import ThinkingParser

NAMES = ("deepseek3", "cogito")
CONTENT = "</think>"
_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"
MARKS = ("<think>", "</think>", _CALLS, _CALLS_END, _CALL, _CALL_END, _SEPARATOR)


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which may end in an open thought."""
    blocks = (Block(_CALLS, _CALLS_END, _calls), Block(_CALL, _CALL_END, _calls))
    return Chained(
        ThinkingParser("<think>", "</think>", inside=prompt.rstrip().endswith("<think>")),
        TaggedParser(tools, blocks, ignored=(_CALLS_END,)),
    )


def _calls(text: str) -> Calls:
    return list(_calls_in(text))


def _calls_in(text: str) -> Iterator[tuple[str, dict[str, Json]]]:
    for part in text.split(_CALL)[1:]:
        head, separator, body = part.partition(_CALL_END)[0].partition(_SEPARATOR)
        if not separator:
            raise ValueError("no arguments")
        name = head.strip()
        if name == "function" and not body.lstrip().startswith("{"):
            name, _, body = body.lstrip().partition("\n")
        yield name.strip(), _arguments(body)


def _arguments(text: str) -> dict[str, Json]:
    """The JSON object in a text, which may be fenced; none is no argument."""
    if not text.replace("```json", "").strip("`\n\t "):
        return {}
    found = decode_object(text[text.find("{") : text.rfind("}") + 1])
    if found is None:
        raise ValueError("no object")
    return found
