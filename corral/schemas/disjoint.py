"""Whether schemas exclude each other, as far as constants and types show.

Part of `policy`; knows parts as `safety` leaves them."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from corral.messages import Json
from corral.schemas.pointers import keys_of

MAX_OPTIONS = 100
"""Alternatives that are compared, each with each other."""
MAX_DEPTH = 8
"""Properties and references that are followed to find a difference."""


def disjoint(options: Sequence[Json], definitions: Mapping[str, Json]) -> bool:
    """Whether no value can fit two of `options`; false also where that is unknown."""
    if len(options) > MAX_OPTIONS:
        return False
    return all(_exclude(one, other, definitions, MAX_DEPTH) for one, other in combinations(options, 2))


def _exclude(one: Json, other: Json, definitions: Mapping[str, Json], depth: int) -> bool:
    one, other = _followed(one, definitions), _followed(other, definitions)
    if not (isinstance(one, dict) and isinstance(other, dict)) or depth == 0:
        return False
    constants, others = _constants(one), _constants(other)
    if constants is not None and others is not None:
        return not constants & others
    kinds, other_kinds = _kinds(one), _kinds(other)
    if kinds and other_kinds and not kinds & other_kinds:
        return True
    if kinds != {"object"} or other_kinds != {"object"}:
        return False
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    ours, theirs = one.get("properties", {}), other.get("properties", {})
    return any(
        _exclude(ours[name], theirs[name], definitions, depth - 1) for name in shared & ours.keys() & theirs.keys()
    )


def _followed(part: Json, definitions: Mapping[str, Json]) -> Json:
    for _ in range(MAX_DEPTH):
        if not isinstance(part, dict) or "$ref" not in part:
            break
        part = definitions[keys_of(part["$ref"])[1]]
    return part


def _constants(part: dict[str, Json]) -> set[tuple[str, Json]] | None:
    """The values of a part that are all it admits, with their types; None when it admits others, too."""
    values = [part["const"]] if "const" in part else part.get("enum")
    if values is None or any(isinstance(value, list | dict) for value in values):
        return None
    return {(_kind(value), value) for value in values}


def _kinds(part: dict[str, Json]) -> set[str]:
    """The types a part admits, none when it does not say; an integer is a number."""
    constants = _constants(part)
    if constants is not None:
        return {kind for kind, _ in constants}
    kinds = part.get("type", [])
    return {"number" if kind == "integer" else kind for kind in ([kinds] if isinstance(kinds, str) else kinds)}


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case _:
            return "string"
