"""How a route describes itself to those who read the API's document. Knows neither OpenAPI nor any dialect."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct, field

Schema: TypeAlias = type[Struct] | Mapping[str, Any]
"""A value that is read or written as JSON, or a JSON Schema, in which such values may stand for theirs."""


class Operation(Struct, frozen=True, kw_only=True):
    """What a route takes and answers. What is left out it does not have."""

    takes: type[Struct] | None = None
    """The JSON of its request."""
    requires: Mapping[str, Mapping[str, Any]] = {}
    """The fields of its request that have to be there, and how their schemas are narrower than by their types."""
    takes_form: Mapping[str, Any] | None = None
    """The fields of its request, where that is a form with a file: the schema of an object."""
    query: Mapping[str, Mapping[str, Any]] = {}
    """The parameters after the `?` of its address, as JSON Schemas with a `description`; `required` says that one must
    be there."""
    takes_bytes: bool = False
    """Whether its request is a file."""
    answers: Schema | None = None
    """Its reply, where that is JSON."""
    lines: Schema | None = None
    """One line of its reply, where that is streamed as JSON, one object a line."""
    events: str = ""
    """What the server-sent events of its reply are, where it is streamed as those."""
    text: str = ""
    """The media type of its reply, where that is a text."""
    success: Mapping[int, str] = field(default_factory=lambda: {200: "Done."})
    """The statuses of its replies, and what each says."""
    errors: tuple[int, ...] | None = None
    """The statuses of its errors; None for all that the dialect has."""


def an_object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The schema of an object, which may have further members."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def a_list(items: Schema) -> Mapping[str, Any]:
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Mapping[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def constant(text: str) -> Mapping[str, Any]:
    return {"type": "string", "const": text}


def meaning(schema: Mapping[str, Any], sentence: str) -> Mapping[str, Any]:
    """The schema of a field, with what the field means."""
    return {"description": sentence, **schema}


ANYTHING: Mapping[str, Any] = {"type": "object"}
STRING: Mapping[str, Any] = {"type": "string"}
FILE: Mapping[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}
"""A file in a form."""
SOME_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
SOME_ITEMS: Mapping[str, Any] = {"type": "array", "minItems": 1}
INTEGER: Mapping[str, Any] = {"type": "integer"}
NUMBER: Mapping[str, Any] = {"type": "number"}
BOOLEAN: Mapping[str, Any] = {"type": "boolean"}
