"""Anthropic's requests turned into ours. Source: spec api §20.1.

Read leniently, since many programs write them: null is as good as left out, unknown blocks and tools that the vendor's
own servers run are left out.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from corral.errors import BadRequest, ModelRequired
from corral.golang import gojson
from corral.messages import ChatRequest, Json, Message, Part, Picture, Text, Think, Tool, ToolCall, ToolChoice
from corral.server.http.files import decode_base64
from corral.server.http.keep_alive import read_keep_alive
from corral.server.http.tools import WireParameters, WireTool, WireToolFunction, read_tool_choice, tool

log = logging.getLogger(__name__)

BILLING = "x-anthropic-billing-header:"
"""How a system block begins that differs in every request and says nothing to the model."""


class WireMessage(Struct):
    role: str = ""
    content: Any = None


class WireToolDefinition(Struct):
    name: str = ""
    description: str = ""
    type: str = ""
    input_schema: WireParameters | UnsetType = UNSET
    strict: bool | None = None


class WireThinking(Struct):
    type: str = ""


class WireFormat(Struct):
    type: str = ""
    schema: Any = None


class WireOutputConfig(Struct):
    effort: str = ""
    format: WireFormat = field(default_factory=WireFormat)


class WireMessagesRequest(Struct):
    """`options` and `keep_alive` are those of Ollama's API."""

    model: str = ""
    messages: list[WireMessage] = []
    max_tokens: int = 0
    system: Any = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] = []
    tools: list[WireToolDefinition] = []
    tool_choice: Any = None
    thinking: WireThinking = field(default_factory=WireThinking)
    output_config: WireOutputConfig = field(default_factory=WireOutputConfig)
    options: dict[str, Any] = {}
    keep_alive: Any = None
    whole: Any = field(name=gojson.WHOLE, default=None)
    """The request as it came."""


def chat_request(wire: WireMessagesRequest) -> ChatRequest:
    """Our request for an answer; `BadRequest` for what is missing or cannot be read."""
    if not wire.model:
        raise ModelRequired
    if wire.max_tokens <= 0:
        raise BadRequest("max_tokens is required and must be positive")
    return _request(wire)


def counted_request(wire: WireMessagesRequest) -> ChatRequest:
    """Our request for the prompt alone, to be counted."""
    if not wire.model:
        raise ModelRequired
    return _request(wire, render_only=True)


def has_cache_control(value: Json) -> bool:
    """Whether a request marks something for the prompt cache, and so wants to know what was found there."""
    match value:
        case {"cache_control": dict()}:
            return True
        case dict():
            return any(map(has_cache_control, value.values()))
        case list():
            return any(map(has_cache_control, value))
        case _:
            return False


def _request(wire: WireMessagesRequest, *, render_only: bool = False) -> ChatRequest:
    if not wire.messages:
        raise BadRequest("messages is required")
    own = {
        "num_predict": wire.max_tokens or None,
        "temperature": wire.temperature,
        "top_p": wire.top_p,
        "top_k": wire.top_k,
        "stop": wire.stop_sequences or None,
    }
    return ChatRequest(
        model=wire.model,
        messages=_messages(wire),
        tools=tuple(_tools(wire.tools)),
        tool_choice=_tool_choice(wire.tool_choice),
        parallel_calls=not (isinstance(wire.tool_choice, dict) and wire.tool_choice.get("disable_parallel_tool_use")),
        options={**wire.options, **{name: value for name, value in own.items() if value is not None}},
        format=_format(wire.output_config.format),
        think=_think(wire),
        must_think=False,
        keep_alive=read_keep_alive(wire.keep_alive),
        render_only=render_only,
        count_prompt=wire.stream,
    )


def _format(wire: WireFormat) -> Json:
    """The schema that the answer has to fit; None: none, as for kinds of format that are not known."""
    return wire.schema if wire.type == "json_schema" else None


def _think(wire: WireMessagesRequest) -> Think:
    match wire.thinking.type:
        case "enabled":
            return True
        case "disabled":
            return False
    match wire.output_config.effort.strip().lower():
        case "xhigh" | "high":
            return "high"
        case "medium":
            return "medium"
        case "low":
            return "low"
        case "max":
            return "max"
        case _:
            return None


def _tool_choice(value: Json) -> ToolChoice:
    match value:
        case {"type": "tool", "name": str(name)} if name:
            return ToolChoice("required", name)
        case _:
            return read_tool_choice(value)


def _tools(definitions: Iterable[WireToolDefinition]) -> Iterator[Tool]:
    """The tools that the client runs itself; those of the vendor's servers have a type and no schema."""
    for wire in definitions:
        if wire.type not in ("", "custom") and wire.input_schema is UNSET:
            log.warning("tool %r is left out: it would run at the vendor's", wire.name or wire.type)
            continue
        parameters = WireParameters() if wire.input_schema is UNSET else wire.input_schema
        yield tool(WireTool(function=WireToolFunction(wire.name, wire.description, parameters, wire.strict)))


def _messages(wire: WireMessagesRequest) -> tuple[Message, ...]:
    """The conversation. All that is said by the system stands in one message at the beginning: templates take no
    later one, and what a model makes of it otherwise is no answer."""
    system = [_system_text(wire.system)]
    found: list[Message] = []
    for message in wire.messages:
        if message.role == "system":
            system.append(_system_text(message.content))
        else:
            found += _turn(message.role, _blocks(message.content))
    text = "\n\n".join(part for part in system if part)
    return (Message.of("system", text), *found) if text else tuple(found)


def _system_text(content: Json) -> str:
    texts = [block.get("text") for block in _blocks(content) if block.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str) and not text.startswith(BILLING))


def _blocks(content: Json) -> list[dict[str, Json]]:
    """The content as blocks, whether it is a text or a list."""
    match content:
        case None:
            return []
        case str(text):
            return [{"type": "text", "text": text}]
        case list(blocks):
            return [{"type": "text", "text": one} if isinstance(one, str) else _block(one) for one in blocks]
        case _:
            raise BadRequest(f"content must be a text or a list of blocks, not {_kind(content)}")


def _block(block: Json) -> dict[str, Json]:
    if not isinstance(block, dict):
        raise BadRequest(f"a block of content must be an object, not {_kind(block)}")
    return block


def _kind(value: Json) -> str:
    return {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}.get(
        type(value), "null"
    )


def _turn(role: str, blocks: list[dict[str, Json]]) -> list[Message]:
    """The messages that a turn amounts to: results of tools each have one of their own, before what a user says."""
    parts: list[Part] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    for block in blocks:
        match block.get("type"):
            case "text":
                parts.append(_text(block))
            case "image":
                parts.append(_picture(block))
            case "document":
                parts += _document(block)
            case "thinking":
                thoughts.append(str(block.get("thinking") or ""))
            case "tool_use" | "server_tool_use":
                calls.append(_call(block, len(calls)))
            case "tool_result" | "web_search_tool_result":
                results.append(_result(block))
            case _:
                pass  # what is not known is for others
    said = Message(role=role, content=tuple(parts), thinking="".join(thoughts), tool_calls=tuple(calls))
    is_empty = not (parts or thoughts or calls)
    if is_empty and (results or role == "assistant"):
        return results
    return [*results, said] if role == "user" else [said, *results]


def _text(block: dict[str, Json]) -> Text:
    text = block.get("text")
    if not isinstance(text, str):
        raise BadRequest("text block missing required 'text' field")
    return Text(text)


def _picture(block: dict[str, Json]) -> Picture:
    match block.get("source"):
        case {"type": "base64", "data": str(data)}:
            try:
                return Picture(decode_base64(data))
            except BadRequest as error:
                raise BadRequest(f"invalid base64 image data: {error}") from error
        case {"type": str(kind)} if kind != "base64":
            raise BadRequest(f"invalid image source type: {kind}. Only base64 images are supported.")
        case _:
            raise BadRequest("invalid image source")


def _document(block: dict[str, Json]) -> list[Part]:
    """A document's text; what is no text, such as a PDF, is refused."""
    match block.get("source"):
        case {"type": "text", "data": str(text)}:
            return [Text(text)]
        case {"type": "content", "content": content}:
            return [_text(part) for part in _blocks(content) if part.get("type") == "text"]
        case _:
            raise BadRequest("only documents of plain text can be read")


def _call(block: dict[str, Json], index: int) -> ToolCall:
    for name in ("id", "name"):
        if not isinstance(block.get(name), str) or not block[name]:
            raise BadRequest(f"tool_use block missing required '{name}' field")
    arguments = block.get("input")
    return ToolCall(block["name"], arguments if isinstance(arguments, dict) else {}, index, block["id"])


def _result(block: dict[str, Json]) -> Message:
    parts: list[Part] = []
    for part in _blocks(block.get("content")):
        match part.get("type"):
            case "text":
                parts.append(_text(part))
            case "image":
                parts.append(_picture(part))
            case _:
                pass
    return Message(role="tool", content=tuple(parts), tool_call_id=str(block.get("tool_use_id") or ""))
