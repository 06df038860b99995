"""What kinds of values fit a part of a schema, one by one: references, `allOf` and `anyOf` are worked in.

Knows keywords as `policy` leaves them. Knows nothing of grammars but whether a part compiles.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from corral.messages import Json
from corral.schemas import grammar
from corral.schemas.closed import OF_OBJECTS
from corral.schemas.pointers import keys_of
from corral.schemas.safety import NUMBERS

Alternative = dict[str, Any]
"""A schema of one `type`, or with `enum` or `const`, that combines no others, but in its members."""

MAX_MERGED = 3000
"""Pairs of alternatives that are merged in one schema."""
MAX_COMPILED = 200
"""Parts that are compiled to see whether anything fits them; each takes some milliseconds."""

_KINDS = ("null", "boolean", "number", "string", "array", "object")
_CONSTANTS = ("enum", "const")
_OF_KIND = {
    "null": (),
    "boolean": (),
    "integer": NUMBERS,
    "number": NUMBERS,
    "string": ("pattern", "format", "minLength", "maxLength"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": OF_OBJECTS,
}
"""The keywords that say something of each type."""
_GREATEST = ("minimum", "exclusiveMinimum", "minItems", "minProperties")
_LEAST = ("maximum", "exclusiveMaximum", "maxItems", "maxProperties")


class TooComplex(Exception):
    """A part that cannot be taken apart."""


class Alternatives:
    """Takes the parts of one schema apart. `TooComplex` where there would be too much of it."""

    def __init__(self, definitions: Mapping[str, Json]) -> None:
        self._definitions = definitions
        self._merged = self._compiled = 0

    def of(self, part: Json) -> list[Alternative]:
        """Schemas of which a value fits one just if it fits the part; none: nothing fits it."""
        if isinstance(part, bool):
            return _of_one_schema({}) if part else []
        own = {keyword: value for keyword, value in part.items() if keyword not in ("$ref", "anyOf", "allOf", "$defs")}
        groups = [_of_one_schema(own)] if own else []
        if "$ref" in part:
            groups.append(self.of(self._definitions[keys_of(part["$ref"])[1]]))
        if "anyOf" in part:
            groups.append([found for option in part["anyOf"] for found in self.of(option)])
        groups += [self.of(option) for option in part.get("allOf", ())]
        return self._combined(groups or [_of_one_schema({})])

    def _combined(self, groups: list[list[Alternative]]) -> list[Alternative]:
        """What fits one alternative of each group."""
        first, *others = groups
        for group in others:
            self._merged += len(first) * len(group)
            if self._merged > MAX_MERGED:
                raise TooComplex
            merged = [_merged(one, other) for one in first for other in group]
            first = _distinct(
                one for one in merged if one is not None and ("allOf" not in one or self.is_possible(one))
            )
        return first

    def is_possible(self, part: Json) -> bool:
        """Whether anything fits a part without references, as the library sees it."""
        self._compiled += 1
        if self._compiled > MAX_COMPILED:
            raise TooComplex
        return not grammar.compile_error(part)


def _of_one_schema(own: dict[str, Any]) -> list[Alternative]:
    """The alternatives of a schema that combines no others."""
    if not own.keys().isdisjoint(_CONSTANTS):
        return [own]
    kinds = own.get("type", _KINDS)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return [
        {"type": kind, **{keyword: own[keyword] for keyword in _OF_KIND[kind] if keyword in own}}
        for kind in kinds
        if kind != "integer" or "number" not in kinds
    ]


def _merged(one: Alternative, other: Alternative) -> Alternative | None:
    """What fits both; None when nothing does."""
    if not (one.keys() | other.keys()).isdisjoint(_CONSTANTS):
        constants = {keyword: part[keyword] for part in (other, one) for keyword in _CONSTANTS if keyword in part}
        return _left_together({**constants, "allOf": [one, other]})
    kinds = {one["type"], other["type"]}
    if kinds == {"integer", "number"}:
        kinds = {"integer"}
    if len(kinds) > 1:
        return None
    kind = kinds.pop()
    match kind:
        case "string":
            return _merged_strings(one, other)
        case "array":
            merged = _merged_arrays(one, other)
        case "object":
            merged = _merged_objects(one, other)
        case _:
            merged = _merged_limits(one, other)
            if one.get("multipleOf", 0) != other.get("multipleOf", 0) and "multipleOf" in one and "multipleOf" in other:
                raise TooComplex
    return {**merged, "type": kind}


def _left_together(part: Alternative) -> Alternative:
    """A part that only the library can merge."""
    if "$ref" in str(part):
        raise TooComplex
    return part


def _merged_strings(one: Alternative, other: Alternative) -> Alternative | None:
    if one.keys() == {"type"} or one == other:
        return other
    return one if other.keys() == {"type"} else _left_together({"type": "string", "allOf": [one, other]})


def _merged_limits(one: Alternative, other: Alternative) -> Alternative:
    """All keywords of both, of limits the narrower one."""
    merged = {**one, **other}
    for keywords, narrower in ((_GREATEST, max), (_LEAST, min)):
        for keyword in keywords:
            if keyword in one and keyword in other:
                merged[keyword] = narrower(one[keyword], other[keyword])
    return merged


def _merged_arrays(one: Alternative, other: Alternative) -> Alternative:
    merged = _merged_limits(one, other)
    prefixes = [part.get("prefixItems", []) for part in (one, other)]
    rest = [part.get("items", True) for part in (one, other)]
    length = max(map(len, prefixes))
    padded = [prefix + [items] * (length - len(prefix)) for prefix, items in zip(prefixes, rest, strict=True)]
    if length:
        merged["prefixItems"] = [_both(*pair) for pair in zip(*padded, strict=True)]
    merged["items"] = _both(*rest)
    return merged


def _merged_objects(one: Alternative, other: Alternative) -> Alternative:
    if "patternProperties" in one or "patternProperties" in other:
        raise TooComplex
    merged = _merged_limits(one, other)
    names = dict.fromkeys((*one.get("properties", ()), *other.get("properties", ())))
    if names:
        merged["properties"] = {name: _both(_member(one, name), _member(other, name)) for name in names}
    merged["required"] = list(dict.fromkeys((*one.get("required", ()), *other.get("required", ()))))
    others = [part["additionalProperties"] for part in (one, other) if "additionalProperties" in part]
    if others:
        merged["additionalProperties"] = _both(*others) if len(others) == 2 else others[0]
    return merged


def _member(part: Alternative, name: str) -> Json:
    """What an object's schema says of a property."""
    return part.get("properties", {}).get(name, part.get("additionalProperties", True))


def _both(one: Json, other: Json) -> Json:
    """A schema that fits what fits both."""
    if one is True or one == other or other is False:
        return other
    if other is True or one is False:
        return one
    return {"allOf": _distinct([*_conjuncts(one), *_conjuncts(other)])}


def _conjuncts(part: Json) -> list[Json]:
    """The parts of which it says nothing but that all are to fit."""
    return part["allOf"] if isinstance(part, dict) and part.keys() == {"allOf"} else [part]


def _distinct(found: Iterable[Json]) -> list[Json]:
    kept: list[Json] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept
