"""Messages, tools and JSON as a template sees them, and how each prints (spec cli §14.3).

Templates get nothing but the types below and strings, numbers, booleans, None: no object of ours, so no attribute of
one. Fields are the keys of dicts.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from corral.golang import gojson
from corral.golang.text import number_text
from corral.messages import Json, Message, Text, Think, Tool, ToolCall

Value: TypeAlias = Any
"""None, bool, int, float, str, list or dict of these."""


class Struct(dict[str, Value]):
    """A Go struct: its fields by name, and the JSON it prints as. `plain` makes that JSON value, keys in order."""

    __slots__ = ("plain",)

    def __init__(self, fields: dict[str, Value], plain: Callable[[], Json]) -> None:
        super().__init__(fields)
        self.plain = plain


class JsonMap(dict[str, Value]):
    """A map that prints as JSON; a template may also walk over it, in sorted key order."""

    __slots__ = ("plain",)

    def __init__(self, entries: dict[str, Value], plain: Callable[[], Json]) -> None:
        super().__init__(entries)
        self.plain = plain


class JsonList(list[Value]):
    """A list that prints as JSON."""


class TypeNames(list[str]):
    """The type of a property: prints as its only name, or as `[a b]`."""


def to_json(value: Value) -> str:
    """Compact JSON as Go writes it: HTML characters escaped, maps sorted, structs in their own order."""
    return gojson.encode(_plain(value)).decode()


def _plain(value: Value) -> Json:
    if isinstance(value, Struct | JsonMap):
        return value.plain()
    if isinstance(value, TypeNames):
        return value[0] if len(value) == 1 else list(value)
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value


def text(value: Value) -> str:
    """What an action prints for a value: Go's `%v`, but tools and arguments in JSON."""
    if isinstance(value, str):
        return value
    return "<no value>" if value is None else _inner_text(value)


def _inner_text(value: Value) -> str:
    match value:
        case str():
            return value
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return number_text(value)
        case Struct() | JsonMap() | JsonList():
            return to_json(value)
        case TypeNames() if len(value) == 1:
            return value[0]
        case dict():
            return "map[" + " ".join(f"{key}:{_inner_text(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(map(_inner_text, value)) + "]"
        case _:
            return str(value)


def collate(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """All system texts joined by blank lines, and the messages with neighbours of one role joined likewise.

    Only the text of the later one is kept; results of tools are never joined (spec cli §14.3).
    """
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is not None and last.role == message.role and message.role != "tool":
            joined[-1] = Message(
                role=last.role,
                content=(*last.content, Text(f"\n\n{message.text}")),
                thinking=last.thinking,
                tool_calls=last.tool_calls,
                tool_name=last.tool_name,
                tool_call_id=last.tool_call_id,
            )
        else:
            joined.append(message)
    return "\n\n".join(message.text for message in messages if message.role == "system"), joined


def thinking(think: Think) -> dict[str, Value]:
    """`Think`, `ThinkLevel` and `IsThinkSet`. True counts as the level `medium` where one is asked for (api §5.2)."""
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def message_value(message: Message) -> Struct:
    """A message with the fields of spec cli §14.3. Of its images a template learns only how many there are."""
    calls = JsonList(map(_call_value, message.tool_calls))
    fields = {
        "Role": message.role,
        "Content": message.text,
        "Thinking": message.thinking,
        "Images": [""] * len(message.media),
        "ToolCalls": calls,
        "ToolName": message.tool_name,
        "ToolCallID": message.tool_call_id,
    }

    def plain() -> Json:
        optional = {
            "thinking": message.thinking,
            "tool_calls": _plain(calls),
            "tool_name": message.tool_name,
            "tool_call_id": message.tool_call_id,
        }
        return {
            "role": message.role,
            "content": message.text,
            **{key: value for key, value in optional.items() if value},
        }

    return Struct(fields, plain)


def _call_value(call: ToolCall) -> Struct:
    arguments = JsonMap(
        {key: _as_float(value) for key, value in call.arguments.items()}, lambda: _plain(call.arguments)
    )
    function = Struct(
        {"Index": call.index, "Name": call.name, "Arguments": arguments},
        lambda: {"index": call.index, "name": call.name, "arguments": _plain(call.arguments)},
    )
    identity = {"id": call.id} if call.id else {}
    return Struct({"ID": call.id, "Function": function}, lambda: {**identity, "function": function.plain()})


def _as_float(value: Json) -> Value:
    """Numbers out of JSON are floats in Go, and print like them; those a float cannot hold stay whole."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    if isinstance(value, dict):
        return {key: _as_float(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_float(item) for item in value]
    return value


def tool_values(tools: Sequence[Tool]) -> JsonList:
    """The tools with the fields of spec cli §14.3."""
    return JsonList(map(_tool_value, tools))


def _tool_value(tool: Tool) -> Struct:
    parameters = _parameters_value(tool.parameters)
    function = Struct(
        {"Name": tool.name, "Description": tool.description, "Parameters": parameters},
        lambda: {"name": tool.name, "description": tool.description, "parameters": parameters.plain()},
    )
    items = {} if tool.items is None else {"items": _plain(tool.items)}
    return Struct(
        {"Type": tool.type, "Items": _as_float(tool.items), "Function": function},
        lambda: {"type": tool.type, **items, "function": function.plain()},
    )


def _parameters_value(schema: dict[str, Json]) -> Struct:
    properties = _properties_value(schema.get("properties"))
    required = _names(schema.get("required"))
    kind = schema.get("type")
    kind = kind if isinstance(kind, str) else ""

    def plain() -> Json:
        optional = {"$defs": schema.get("$defs"), "items": schema.get("items"), "required": required or None}
        given = {key: _plain(value) for key, value in optional.items() if value is not None}
        return {"type": kind, **given, "properties": properties.plain()}

    fields = {
        "Type": kind,
        "Defs": _as_float(schema.get("$defs")),
        "Items": _as_float(schema.get("items")),
        "Required": required,
        "Properties": properties,
    }
    return Struct(fields, plain)


def _properties_value(properties: Json) -> JsonMap:
    entries: dict[str, Value] = {}
    if isinstance(properties, dict):
        entries = {name: _property_value(properties[name]) for name in sorted(properties)}
    return JsonMap(entries, lambda: {name: entry.plain() for name, entry in entries.items()})


def _property_value(schema: Json) -> Struct:
    if not isinstance(schema, dict):
        schema = {}
    kinds = TypeNames(_names(schema.get("type")))
    inner = _properties_value(schema.get("properties"))
    alternatives = schema.get("anyOf")
    any_of = JsonList(map(_property_value, alternatives)) if isinstance(alternatives, list) else JsonList()
    fields = {
        "AnyOf": any_of,
        "Type": kinds,
        "Items": _as_float(schema.get("items")),
        "Description": schema.get("description") or "",
        "Enum": _as_float(schema.get("enum")) or [],
        "Properties": inner,
        "Required": _names(schema.get("required")),
    }
    keys = ("anyOf", "type", "items", "description", "enum", "properties", "required")

    def plain() -> Json:
        entries = zip(keys, fields.values(), strict=True)
        return {key: _plain(value) for key, value in entries if value not in (None, "", [], {})}

    return Struct(fields, plain)


def _names(value: Json) -> list[str]:
    """A name or a list of names, anything else left out."""
    if isinstance(value, str):
        return [value]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
