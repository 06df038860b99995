"""Tools as requests of every dialect declare them: a JSON Schema for the arguments, and which of them may be called.

Source: spec api §5.6.
"""

import logging
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from corral.golang import gojson
from corral.messages import Json, Tool, ToolChoice

log = logging.getLogger(__name__)


class WireProperty(Struct, omit_defaults=True):
    """What is read of a part of a tool's JSON Schema: what reaches the model (spec api §5.6)."""

    anyOf: "list[WireProperty | bool]" = []  # noqa: N815 - a wire name
    type: str | list[str] = ""
    items: Any = None
    description: str = ""
    enum: list[Any] = []
    properties: "dict[str, WireProperty | bool]" = {}
    required: list[str] | bool = []

    def for_prompt(self) -> "WireProperty":
        """The same without booleans: `true` for a schema says nothing, and `false` that there is no such value."""
        options = [WireProperty() if part is True else part.for_prompt() for part in self.anyOf if part is not False]
        properties, required = _for_prompt(self.properties, self.required)
        return msgspec.structs.replace(self, anyOf=options, properties=properties, required=required)


def _for_prompt(
    properties: "dict[str, WireProperty | bool]", required: list[str] | bool
) -> "tuple[dict[str, WireProperty | bool], list[str]]":
    """Properties as the model reads them, and the names of the required ones; `required: true` in one names it."""
    named = [name for name, part in properties.items() if isinstance(part, WireProperty) and part.required is True]
    listed = [] if isinstance(required, bool) else required
    kept: dict[str, WireProperty | bool] = {
        name: WireProperty() if part is True else part.for_prompt()
        for name, part in properties.items()
        if part is not False
    }
    return kept, [*listed, *(name for name in named if name not in listed)]


class WireParameters(Struct, omit_defaults=True):
    type: str | UnsetType = UNSET
    defs: Any = field(name="$defs", default=None)
    items: Any = None
    required: list[str] | bool = []
    properties: dict[str, WireProperty | bool] | UnsetType = UNSET
    whole: Any = field(name=gojson.WHOLE, default=None)
    """The schema as it came, by which calls are checked."""


class WireToolFunction(Struct):
    name: str = ""
    description: str = ""
    parameters: WireParameters = field(default_factory=WireParameters)
    strict: bool | None = None
    whole: Any = field(name=gojson.WHOLE, default=None)
    """The definition as it came, which may say more."""


class WireTool(Struct):
    type: str = ""
    items: Any = None
    function: WireToolFunction = field(default_factory=WireToolFunction)


def tool(wire: WireTool) -> Tool:
    function = wire.function
    schema = function.parameters
    properties, required = _for_prompt({} if schema.properties is UNSET else schema.properties, schema.required)
    parameters = msgspec.structs.replace(
        schema, whole=None, required=required, properties=UNSET if schema.properties is UNSET else properties
    )
    return Tool(
        function.name,
        function.description,
        msgspec.to_builtins(parameters),
        wire.type or "function",
        wire.items,
        schema.whole,
        function.strict,
        _more(function.whole or {}),
    )


_READ = frozenset(one.encode_name for one in msgspec.structs.fields(WireToolFunction))


def _more(definition: dict[str, Json]) -> dict[str, Json]:
    """What a definition says beside what is read of it."""
    return {key: value for key, value in definition.items() if key.lower() not in _READ and value is not None}


def read_tool_choice(value: Json) -> ToolChoice:
    """`"auto"`, `"none"`, `"required"`, or a named function as OpenAI's or Anthropic's clients write them.

    An addition of ours. Anything else is ignored, as Ollama ignores the whole field.
    """
    match value:
        case None | "auto" | "" | {"type": "auto"}:
            return ToolChoice()
        case "none" | {"type": "none"}:
            return ToolChoice("none")
        case "required" | "any" | {"type": "required" | "any"}:
            return ToolChoice("required")
        case {"function": {"name": str(name)}} | {"name": str(name)} if name:
            return ToolChoice("required", name)
        case _:
            given = gojson.encode(value).decode()[:200]
            log.warning('tool_choice %s is ignored: it is not "auto", "none", "required" or a function', given)
            return ToolChoice()
