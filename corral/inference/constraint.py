"""What an answer is held to: a request's `format`, or the calls of tools it has to be. Source: spec api §5.3.

Part of the meeting point. Knows schemas and tools; no model, no engine.
"""

import asyncio
from collections.abc import Sequence

from msgspec import structs

from corral import schemas
from corral.errors import BadRequest, CorralError, EngineError
from corral.golang import gojson
from corral.golang.text import quote
from corral.messages import Json, Tool, ToolChoice
from corral.schemas import Schema


async def of_format(given: Json) -> Schema | None:
    """What a request's `format` asks for, None for any text; `BadRequest` for a schema that cannot be kept to.

    A schema that constrains nothing asks for any object.
    """
    match given:
        case None:
            return None
        case "json":
            return schemas.judge({"type": "object"})
        case dict():
            schema = await asyncio.to_thread(schemas.judge, given)
            # As llama.cpp takes it: with the whole of JSON to choose from, small models write numbers without end.
            is_open = schema.value.keys() == schemas.ON_ONE_LINE.keys()
            return structs.replace(schema, value=schemas.judge({"type": "object"}).value) if is_open else schema
        case _:
            raw = gojson.encode(given).decode()
            raise CorralError(f'invalid format: {quote(raw)}; expected "json" or a valid JSON Schema object')


def chosen_tools(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """The tools of which one has to be called; `BadRequest` when there is none of the name that was chosen."""
    allowed = tuple(tool for tool in tools if tool.name and choice.name in ("", tool.name))
    if not allowed and choice.name:
        raise BadRequest(f'tool_choice names "{choice.name}", which is not among the tools')
    if not allowed:
        raise BadRequest("tool_choice wants a call, but no tool has a name")
    return allowed


async def check_tools(tools: Sequence[Tool]) -> None:
    """`BadRequest` with the place in the definition of a tool that is wrong."""
    for tool in tools:
        await asyncio.to_thread(schemas.judge, tool.schema or tool.parameters, f'parameters of the tool "{tool.name}"')


async def of_calls(tools: Sequence[Tool]) -> Schema:
    """A call of one of the tools, in the form that is read from any model's answer."""
    await check_tools(tools)
    return await asyncio.to_thread(schemas.judge, _call_schema(tools), "tools")


async def check_kept(schema: dict[str, Json] | None, said: str) -> None:
    """The engine drops a constraint it cannot keep up and writes on freely: such an answer is an `EngineError`."""
    if schema is not None and not await asyncio.to_thread(schemas.accepts_prefix, schema, said):
        raise EngineError("the answer left the format it was held to: the schema may be too complex for the engine")


def _call_schema(tools: Sequence[Tool]) -> Json:
    """No argument that is not declared, unless a tool says that it takes others."""
    calls = []
    for number, tool in enumerate(tools):
        parameters = schemas.relocated(tool.schema or tool.parameters, "anyOf", str(number), "properties", "arguments")
        arguments = {"additionalProperties": False, **parameters, "type": "object"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls}
