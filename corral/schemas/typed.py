"""Schemas as chat templates show them that take for granted that every part has one type.

Such templates fail at a property without `type`, or with several (`["string", "null"]`). Nothing is checked by what is
made here.
"""

from collections.abc import Sequence

from corral.messages import Json

UNKNOWN = "any"
"""The type of a part that says nothing of it."""

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def typed(schema: dict[str, Json]) -> dict[str, Json]:
    """The schema with one type in every part, and `nullable` in those that may be null beside it.

    Without a type of its own, a part has what the first of its alternatives has that is not null. A schema that is
    nested too deep for this stays as it is.
    """
    try:
        return _typed(schema)
    except RecursionError:
        return schema


def _typed(schema: dict[str, Json]) -> dict[str, Json]:
    found = {keyword: _with_typed_parts(keyword, value) for keyword, value in schema.items()}
    types, chosen = _own_types(schema), {}
    if not types:
        alternatives = [part for word in ("anyOf", "oneOf") for part in _objects(found.get(word))]
        types = [str(part["type"]) for part in alternatives]
        chosen = next((part for part in alternatives if part["type"] != "null"), {})
    one = next((name for name in types if name != "null"), types[0] if types else UNKNOWN)
    nullable = {"nullable": True} if "null" in types and one != "null" else {}
    return {**chosen, **found, "type": one, **nullable}


def _with_typed_parts(keyword: str, value: Json) -> Json:
    match keyword, value:
        case "properties" | "$defs", dict():
            return {name: _typed(part) if isinstance(part, dict) else part for name, part in value.items()}
        case "items" | "additionalProperties", dict():
            return _typed(value)
        case "anyOf" | "oneOf" | "allOf", list():
            return [_typed(part) if isinstance(part, dict) else part for part in value]
        case _:
            return value


def _own_types(schema: dict[str, Json]) -> Sequence[str]:
    """What the schema says of its type, or what its other keywords speak of."""
    match schema.get("type"):
        case str(name) if name:
            return [name]
        case list(names) if names:
            return [name for name in names if isinstance(name, str)]
    if "properties" in schema:
        return ["object"]
    if "items" in schema:
        return ["array"]
    values = schema.get("enum")
    return [_TYPES[type(value)] for value in values[:1] if type(value) in _TYPES] if isinstance(values, list) else []


def _objects(value: Json) -> list[dict[str, Json]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
