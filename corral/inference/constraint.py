"""The schema an answer must fit: a request's `format`, or the calls of tools it has to be. Source: spec api §5.3.

Knows schemas and tools; no model, no engine.
"""

import asyncio
from collections.abc import Sequence

from msgspec import Struct, structs

from corral import schemas
from corral.errors import BadRequest, EngineError, InvalidFormat
from corral.golang import gojson
from corral.golang.text import quote
from corral.messages import Json, Tool, ToolChoice
from corral.schemas import Schema


class CallsOf(Struct, frozen=True):
    """The answer must be a call of one of these tools."""

    tools: tuple[Tool, ...]


async def schema_for(wanted: Json | CallsOf) -> Schema | None:
    """The schema of a request's `format` or of a forced call; None for any text.

    A schema that constrains nothing asks for any object. `BadRequest` for one that cannot be enforced, `InvalidFormat`
    for what is no format.
    """
    match wanted:
        case None:
            return None
        case CallsOf(tools):
            return await asyncio.to_thread(_calls_schema, tools)
        case "json":
            return schemas.judge({"type": "object"})
        case dict():
            schema = await asyncio.to_thread(schemas.judge, wanted)
            # As llama.cpp takes it: with the whole of JSON to choose from, small models write numbers without end.
            is_open = schema.value.keys() == schemas.ON_ONE_LINE.keys()
            return structs.replace(schemas.judge({"type": "object"}), ignored=schema.ignored) if is_open else schema
        case _:
            raw = gojson.encode(wanted).decode()
            raise InvalidFormat(quote(raw))


def chosen_tools(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """The tools of which one has to be called; `BadRequest` when there is none of the name that was chosen."""
    allowed = tuple(tool for tool in tools if tool.name and choice.name in ("", tool.name))
    if not allowed and choice.name:
        raise BadRequest(f'tool_choice names "{choice.name}", which is not among the tools')
    if not allowed:
        raise BadRequest("tool_choice wants a call, but no tool has a name")
    return allowed


async def loosened_arguments(tool: Tool) -> dict[str, Json]:
    """As much of the schema of a tool's arguments as any engine can make a grammar of."""
    loose = await asyncio.to_thread(schemas.loosened, _given(tool))
    return {**schemas.plain(loose.value), "type": "object"}


async def verify_answer(schema: dict[str, Json] | None, answer: str, grammar: str = "") -> None:
    """`EngineError` for an answer that does not fit: the engine drops a constraint it cannot keep up with."""
    if schema is not None and not await asyncio.to_thread(schemas.accepts_prefix, schema, answer, grammar):
        raise EngineError("the answer does not fit the format: the schema may be too complex for the engine")


def _given(tool: Tool) -> Json:
    """The schema of a tool's arguments as the request gave it."""
    return tool.parameters if tool.schema is None else tool.schema


def _with_declared(arguments: Json) -> Json:
    """A schema of arguments in which every required one is declared: `required` often names others by mistake.

    One that is not declared may be anything, or, where no others are allowed, need not be there.
    """
    if not isinstance(arguments, dict) or "patternProperties" in arguments:
        return arguments
    required, declared = arguments.get("required"), arguments.get("properties") or {}
    if not isinstance(required, list) or not isinstance(declared, dict):
        return arguments
    others = arguments.get("additionalProperties", True)
    if others is False:
        return {**arguments, "required": [name for name in required if name in declared]}
    return {**arguments, "properties": {**{name: others for name in required if isinstance(name, str)}, **declared}}


def _calls_schema(tools: Sequence[Tool]) -> Schema:
    """The schema of a call of one of the tools; what cannot be enforced of their arguments is among the `ignored`."""
    arguments, ignored = [], []
    for tool in tools:
        given = _with_declared(_given(tool))
        try:
            schemas.judge(given)
        except BadRequest:
            loose = schemas.loosened(given)
            arguments.append(loose.value)
            ignored += [f"{tool.name}{pointer}" for pointer in loose.ignored]
        else:
            arguments.append(given)
    try:
        schema = schemas.judge(_call_schema(tools, arguments), "tools")
    except BadRequest:  # each can be used, all together are too much
        ignored = [f"{tool.name}#" for tool in tools]
        schema = schemas.judge(_call_schema(tools, [schemas.ANY_OBJECT.value] * len(tools)), "tools")
    return structs.replace(schema, ignored=(*schema.ignored, *ignored))


def _call_schema(tools: Sequence[Tool], parameters: Sequence[dict[str, Json]]) -> Json:
    """No argument that is not declared, unless a tool says that it takes others."""
    calls = []
    for number, (tool, given) in enumerate(zip(tools, parameters, strict=True)):
        moved = schemas.relocated(given, "anyOf", str(number), "properties", "arguments")
        lists_all = moved.keys().isdisjoint(("$ref", "allOf", "anyOf", "oneOf"))
        arguments = {**({"additionalProperties": False} if lists_all else {}), **moved, "type": "object"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls}
