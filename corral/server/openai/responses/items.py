"""The items of a conversation turned into messages. Source: spec api §18.1."""

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from corral.errors import BadRequest
from corral.messages import Json, Media, Message, Part, Sound, Text, ToolCall
from corral.server.http.files import decode_base64
from corral.server.openai.responses.wire import CUSTOM_INPUT, full_name
from corral.server.openai.wire import read_arguments, read_image_url

log = logging.getLogger(__name__)

Item: TypeAlias = dict[str, Any]

_LEFT_OUT = frozenset(
    {
        *("item_reference", "compaction", "image_generation_call", "file_search_call", "web_search_call"),
        *("computer_call", "computer_call_output", "code_interpreter_call", "local_shell_call"),
        *("local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output"),
        *("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call"),
    }
)
"""Types of items that say nothing here: what the vendor's servers did, and references that were forgotten."""


def read_items(value: Json) -> list[Item]:
    """The `input` of a request as items; `BadRequest` for anything but a text or a list of objects."""
    match value:
        case str(text):
            return [{"type": "message", "role": "user", "content": text}]
        case list(items):
            return [_typed(number, item) for number, item in enumerate(items)]
        case None:
            raise BadRequest("input is required")
        case _:
            raise BadRequest(f"input must be a string or array: it is {_kind(value)}")


def messages_of(items: Sequence[Item]) -> list[Message]:
    """The conversation; `BadRequest` names the item that cannot be read."""
    conversation = _Conversation()
    for number, item in enumerate(items):
        conversation.add(number, item)
    return conversation.messages()


def _typed(number: int, item: Json) -> Item:
    if not isinstance(item, dict):
        raise BadRequest(f"input[{number}]: an item must be an object, not {_kind(item)}")
    if item.get("type") is None:
        if "role" not in item:
            raise BadRequest(f"input[{number}]: input item missing required 'type' field")
        return {**item, "type": "message"}
    return item


class _Conversation:
    """Items go in, messages come out: what one turn of the model said is one message."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._thinking = ""  # said before the next thing of the model
        self._names: dict[str, str] = {}

    def messages(self) -> list[Message]:
        if self._thinking:
            return [*self._messages, Message(role="assistant", thinking=self._thinking)]
        return self._messages

    def add(self, number: int, item: Item) -> None:
        match item["type"]:
            case "message":
                self._add_message(number, item)
            case "reasoning":
                self._thinking += _thought(item)
            case "function_call":
                self._add_call(item, read_arguments(item.get("arguments") or {}))
            case "custom_tool_call":
                self._add_call(item, {CUSTOM_INPUT: str(item.get("input") or "")})
            case "function_call_output" | "custom_tool_call_output":
                self._add_result(number, item)
            case str(kind) if kind in _LEFT_OUT:
                log.warning("an item of type %s is left out of a conversation", kind)
            case kind:
                raise BadRequest(f'input[{number}]: unknown input item type: "{kind}"')

    def _add_message(self, number: int, item: Item) -> None:
        role = str(item.get("role") or "user").lower()
        content = _content(number, item.get("content"))
        if role != "assistant":
            self._messages.append(Message(role="system" if role == "developer" else role, content=content))
            return
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant" and last.tool_calls and not self._thinking:
            self._messages[-1] = msgspec.structs.replace(last, content=(*last.content, *content))
            return
        self._messages.append(Message(role="assistant", content=content, thinking=self._take_thinking()))

    def _add_call(self, item: Item, arguments: dict[str, Any]) -> None:
        name = full_name(str(item.get("namespace") or ""), str(item.get("name") or ""))
        call_id = str(item.get("call_id") or item.get("id") or "")
        self._names[call_id] = name
        last = self._messages[-1] if self._messages else None
        if last is None or last.role != "assistant" or self._thinking:
            last = Message(role="assistant", thinking=self._take_thinking())
            self._messages.append(last)
        call = ToolCall(name, arguments, len(last.tool_calls), call_id)
        self._messages[-1] = msgspec.structs.replace(last, tool_calls=(*last.tool_calls, call))

    def _add_result(self, number: int, item: Item) -> None:
        call_id = str(item.get("call_id") or "")
        content = _content(number, item.get("output"))
        name = self._names.get(call_id, "")
        self._messages.append(Message(role="tool", content=content, tool_name=name, tool_call_id=call_id))

    def _take_thinking(self) -> str:
        thinking, self._thinking = self._thinking, ""
        return thinking


def _thought(item: Item) -> str:
    """What a reasoning item says: our own stand in the field that is encrypted elsewhere."""
    encrypted = item.get("encrypted_content")
    if isinstance(encrypted, str) and encrypted:
        return encrypted
    summary = item.get("summary")
    parts = summary if isinstance(summary, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _content(number: int, content: Json) -> tuple[Part, ...]:
    match content:
        case None:
            return ()
        case str(text):
            return (Text(text),) if text else ()
        case list(parts):
            return tuple(_part(f"input[{number}]: content[{place}]", part) for place, part in enumerate(parts))
        case _:
            raise BadRequest(f"input[{number}]: content must be a string or array: it is {_kind(content)}")


def _part(where: str, part: Json) -> Part:
    match part:
        case str(text):
            return Text(text)
        case {"type": "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "input_image", "image_url": str(url)}:
            return read_image_url(url)
        case {"type": "input_image"}:
            raise BadRequest(f"{where}: an image must come as 'image_url'")
        case {"type": "input_audio", "input_audio": {"data": str(data)}}:
            return _sound(where, data)
        case {"type": "input_file"}:
            raise BadRequest("file inputs are not currently supported")
        case dict():
            raise BadRequest(f"{where}: unknown content type: {part.get('type')}")
        case _:
            raise BadRequest(f"{where}: a part must be an object, not {_kind(part)}")


def _sound(where: str, data: str) -> Media:
    try:
        return Sound(decode_base64(data))
    except BadRequest as error:
        raise BadRequest(f"{where}: {error}") from error


def _kind(value: Json) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null")
