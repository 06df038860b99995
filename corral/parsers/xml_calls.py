"""Tool calls in tags, as Qwen 3 Coder, Qwen 3.5 and Nemotron 3 write them; thoughts before them (spec cli §16.3).

    <tool_call>
    <function=NAME>
    <parameter=KEY>
    value
    </parameter>
    </function>
    </tool_call>

Some models leave the outer tag out. A value is text; the tool's schema says what it is to be read as.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corral.messages import Json, Tool
from corral.parsers.base import OutputParser
from corral.parsers.tagged import Block, Calls, Chained, TaggedParser
from corral.parsers.thinking import ThinkingParser
from corral.parsers.typed import properties, typed

_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
MARKS = ("<think>", "</think>", _CALL, _CALL_END)


def xml_call_parser(tools: Sequence[Tool], *, inside: bool = False) -> OutputParser:
    """Reads thoughts, then text with calls of `tools` in it. `inside`: the answer begins as a thought."""
    known = {tool.name: tool for tool in tools}

    def read(text: str) -> Calls:
        return list(_calls_in(text, known))

    blocks = (Block(_CALL, _CALL_END, read), Block(_FUNCTION, _FUNCTION_END, read))
    return Chained(
        ThinkingParser("<think>", "</think>", inside=inside), TaggedParser(tools, blocks, ignored=(_CALL_END,))
    )


def _calls_in(text: str, tools: Mapping[str, Tool]) -> Iterator[tuple[str, dict[str, Json]]]:
    """The name and arguments of each function; nothing more after one that is not closed."""
    at = text.find(_FUNCTION)
    while at >= 0:
        name, mark, _ = text[at + len(_FUNCTION) :].partition(">")
        begin = at + len(_FUNCTION) + len(name) + 1
        end = text.find(_FUNCTION_END, begin)
        if not mark or end < 0:
            return
        name = name.strip()
        yield name, dict(_parameters(text[begin:end], properties(tools.get(name))))
        at = text.find(_FUNCTION, end)


def _parameters(text: str, declared: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    at = text.find(_PARAMETER)
    while at >= 0:
        name_end = text.find(">", at)
        end = text.find(_PARAMETER_END, name_end)
        if name_end < 0 or end < 0:
            return
        name = text[at + len(_PARAMETER) : name_end].strip()
        yield name, typed(text[name_end + 1 : end], declared.get(name))
        at = text.find(_PARAMETER, end)
