"""Requests for a response turned into ours. Source: spec api §18.1.

Read leniently: null is as good as left out, tools that the vendor's own servers run are left out with a warning.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct, field

from corral.golang import gojson
from corral.messages import ChatRequest, Json, Message, Tool, ToolChoice
from corral.server.http.keep_alive import read_keep_alive
from corral.server.http.tools import WireParameters, WireTool, WireToolFunction, read_tool_choice, tool
from corral.server.openai.wire import read_effort

log = logging.getLogger(__name__)


class WireResponseTool(Struct):
    """A tool; those of a `namespace` stand within it."""

    type: str = ""
    name: str = ""
    description: str = ""
    parameters: WireParameters = field(default_factory=WireParameters)
    strict: bool | None = None
    tools: "list[WireResponseTool]" = []


class WireTextFormat(Struct):
    type: str = "text"
    schema: Any = None


class WireText(Struct):
    format: WireTextFormat = field(default_factory=WireTextFormat)


class WireReasoning(Struct):
    effort: str = ""


class WireResponseRequest(Struct):
    """`options` and `keep_alive` are those of Ollama's API."""

    model: str = ""
    input: Any = None
    instructions: str = ""
    previous_response_id: str = ""
    store: bool | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: WireReasoning = field(default_factory=WireReasoning)
    text: WireText = field(default_factory=WireText)
    tools: list[WireResponseTool] = []
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    options: dict[str, Any] = {}
    keep_alive: Any = None
    whole: Any = field(name=gojson.WHOLE, default=None)
    """The request as it came, of which the response echoes parts."""


CUSTOM_INPUT = "input"
"""The one argument of a tool that takes a text."""

_CUSTOM_PARAMETERS = WireParameters(
    type="object",
    required=[CUSTOM_INPUT],
    whole={"type": "object", "properties": {CUSTOM_INPUT: {"type": "string"}}, "required": [CUSTOM_INPUT]},
)


def chat_request(wire: WireResponseRequest, conversation: Iterable[Message]) -> ChatRequest:
    """Our request to go on with a conversation; `BadRequest` for what cannot be read."""
    own = {
        "num_predict": wire.max_output_tokens,
        "temperature": wire.temperature,
        "top_p": wire.top_p,
    }
    given = {name: value for name, value in own.items() if value is not None}
    system = (Message.of("system", wire.instructions),) if wire.instructions else ()
    return ChatRequest(
        model=wire.model,
        messages=(*system, *conversation),
        tools=tuple(_tools(wire.tools)),
        tool_choice=_tool_choice(wire.tool_choice),
        parallel_calls=wire.parallel_tool_calls,
        format=wire.text.format.schema if wire.text.format.type == "json_schema" else None,
        options={"temperature": 1.0, **wire.options, **given},
        think=read_effort(wire.reasoning.effort),
        must_think=False,
        keep_alive=read_keep_alive(wire.keep_alive),
        count_thinking=True,
    )


class CalledTool(Struct, frozen=True):
    """How a client knows a tool: what its calls are written with."""

    name: str
    namespace: str = ""
    is_custom: bool = False
    """Whether it takes a text instead of arguments."""


def called_tools(tools: Iterable[WireResponseTool]) -> dict[str, CalledTool]:
    """The tools that the client runs itself, by the names under which the model knows them."""
    return {
        full_name(space, item.name): CalledTool(item.name, space, item.type == "custom")
        for space, item in _with_namespaces(tools)
        if item.type in ("function", "custom")
    }


def full_name(namespace: str, name: str) -> str:
    """The name under which a model knows a tool."""
    return f"{namespace}.{name}" if namespace else name


def _tools(tools: Iterable[WireResponseTool]) -> Iterator[Tool]:
    for space, item in _with_namespaces(tools):
        name = full_name(space, item.name)
        match item.type:
            case "function":
                function = WireToolFunction(name, item.description, item.parameters, item.strict)
                yield tool(WireTool(function=function))
            case "custom":
                schema = _CUSTOM_PARAMETERS.whole
                yield Tool(name, item.description, schema, schema=schema)
            case _:
                log.warning("tool %r is left out: it would run at the vendor's", item.name or item.type)


def _with_namespaces(tools: Iterable[WireResponseTool], namespace: str = "") -> Iterator[tuple[str, WireResponseTool]]:
    """Each tool with the namespace that it stands in, which is empty outside of one."""
    for item in tools:
        if item.type == "namespace":
            yield from _with_namespaces(item.tools, item.name)
        else:
            yield namespace, item


def _tool_choice(value: Json) -> ToolChoice:
    match value:
        case {"type": "allowed_tools", "mode": "required"}:
            return ToolChoice("required")
        case {"type": "allowed_tools"}:
            return ToolChoice()
        case _:
            return read_tool_choice(value)
