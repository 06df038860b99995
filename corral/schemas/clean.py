"""A schema from outside → one the engine's compiler can be trusted with: checked, bounded, reduced to what constrains.

Every bound stands for a schema that did harm without it: the compiler recurses along references until its stack ends,
unrolls arrays by their counts, and gives up in the middle of an answer when too many ways lie open at once.
"""

import graphlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from msgspec import Struct

from corral.messages import Json
from corral.schemas import grammar
from corral.schemas.closed import OF_OBJECTS, close
from corral.schemas.disjoint import disjoint
from corral.schemas.pointers import follow, keys_of, pointer

MAX_BYTES = 256 << 10
MAX_PARTS = 4000
"""Schemas within the schema."""
MAX_LEVELS = 50
"""Schemas within each other, and lists and objects within each other in a constant."""
MAX_LEVELS_IN_ALL = 800
"""Levels of the schema and of all it refers to, together: a chain of references is as deep as its parts."""
MAX_VALUES = 10_000
"""Values in all `enum`s and constants."""
MAX_PATTERN = 2000
"""Characters of a regular expression."""
MAX_ITEMS, MAX_ITEMS_IN_ALL = 4096, 20_000
"""What `minItems` and `maxItems` may count, one by one and together."""
MAX_LENGTH = 1_000_000
"""What other counts may be."""
MAX_OPEN = 450
"""Ways an answer may go on at one point: optional properties of an object and of its alternatives."""
MAX_TESTED = 100
"""Regular expressions, and alternatives of which one only may fit, that are tried one by one."""
LARGE_NUMBER = 1e18
"""A limit beyond it limits nothing that is written."""

INTEGER_END = 9_000_000_000_000_000_000
"""Shortly before 64 bits end: the compiler reckons in floats."""

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "unknown")
"""Formats that the engine enforces."""

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_ALTERNATIVES = ("allOf", "anyOf", "oneOf")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_IMPLIED = {
    "object": OF_OBJECTS,
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": _NUMBERS,
}
"""The type that whoever leaves it out has in mind, by keywords that constrain no other."""
_UNENFORCED: dict[str, Json] = {
    **{keyword: {} for keyword in ("if", "contains", "propertyNames", "$dynamicRef", "$recursiveRef")},
    **{keyword: {} for keyword in ("dependentRequired", "dependentSchemas", "dependencies")},
    "not": False,
    "uniqueItems": False,
    "unevaluatedItems": True,
    "unevaluatedProperties": True,
}
"""What the engine cannot hold an answer to, with the value that does not constrain."""


class Unfit(Exception):
    """A part of a schema that cannot be used: where, and why."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(pointer, reason)
        self.pointer = pointer
        self.reason = reason


class Cleaned(Struct, frozen=True):
    value: Json
    definitions: dict[str, Json]
    parts: tuple[tuple[str, Json], ...]
    """Each part under its pointer, inner ones before those they are in."""
    ignored: tuple[str, ...]


def clean(schema: Json) -> Cleaned:
    """`Unfit` for what is no schema, too much, or refers to nothing."""
    return _Cleaner(schema).run()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part stands: its keys, how deep in its definition, and whether that definition amounts to it."""

    keys: tuple[str | int, ...] = ()
    level: int = 1
    definition: str = ""
    is_direct: bool = True
    is_typed: bool = False
    """Whether a type is given, here or by the part whose alternative it is."""

    def at(self, *keys: str | int) -> str:
        return pointer(*self.keys, *keys)

    def inside(self, *keys: str | int, is_direct: bool = False) -> "_Place":
        return _Place(
            (*self.keys, *keys),
            self.level + 1,
            self.definition,
            is_direct=self.is_direct and is_direct,
            is_typed=self.is_typed and is_direct,
        )

    def refuse(self, reason: str, *keys: str | int) -> NoReturn:
        raise Unfit(self.at(*keys), reason)


class _Cleaner:
    def __init__(self, root: Json) -> None:
        self._root = root
        self._names: dict[tuple[str, ...], str] = {}
        """What definitions are called, by the keys that lead to them."""
        self._definitions: dict[str, Json] = {}
        self._waiting: list[tuple[str, tuple[str, ...]]] = []
        self._same: dict[str, set[str]] = {"": set()}
        """Which definitions a definition amounts to, with nothing in between."""
        self._levels: dict[str, int] = {}
        self._parts: list[tuple[_Place, Json]] = []
        self._ignored: list[str] = []
        self._ways: dict[str, int] = {}
        self._values = self._items = self._patterns = 0

    def run(self) -> Cleaned:
        value = self._part(self._root, _Place())
        while self._waiting:
            name, keys = self._waiting.pop()
            self._definitions[name] = self._part(follow(self._root, keys), _Place(keys, definition=name))
        self._refuse_loops()
        close((part for _, part in self._parts), self._ignored)
        self._settle_one_of()
        for place, part in self._parts:
            if self._open_ways(part) > MAX_OPEN:
                place.refuse(
                    f"an answer may go on in more than {MAX_OPEN} ways at once: optional properties, alternatives"
                )
        if self._definitions:
            value = {**({} if value is True else value), "$defs": self._definitions}
        parts = tuple((place.at(), part) for place, part in self._parts)
        return Cleaned(value, self._definitions, parts, tuple(self._ignored))

    def _part(self, schema: Json, place: _Place) -> Json:
        self._count_part(place)
        if isinstance(schema, bool):
            part: Json = schema
        elif isinstance(schema, dict):
            part = {}
            place = replace(place, is_typed=place.is_typed or not schema.keys().isdisjoint(("type", "enum", "const")))
            for keyword, value in schema.items():
                self._keyword(keyword, value, part, schema, place)
            if not place.is_typed:
                _imply_type(part)
            _drop_open_counts(part, place, self._ignored)
            _bound_integers(part)
        else:
            place.refuse("a schema is an object, true or false")
        self._parts.append((place, part))
        return part

    def _count_part(self, place: _Place) -> None:
        if len(self._parts) >= MAX_PARTS:
            place.refuse(f"more than {MAX_PARTS} schemas in one")
        if place.level > MAX_LEVELS:
            place.refuse(f"more than {MAX_LEVELS} schemas within each other")
        self._levels[place.definition] = max(place.level, self._levels.get(place.definition, 0))
        if sum(self._levels.values()) > MAX_LEVELS_IN_ALL:
            place.refuse(f"all definitions together are more than {MAX_LEVELS_IN_ALL} levels deep")

    def _keyword(self, keyword: str, value: Json, part: dict[str, Any], schema: dict[str, Json], place: _Place) -> None:
        """Puts what a keyword means into `part`. Keywords that constrain nothing are left out."""
        match keyword:
            case "type":
                part[keyword] = _types(value, place)
            case "enum" | "const":
                part[keyword] = self._constants(keyword, value, place)
            case "properties" | "patternProperties":
                part[keyword] = self._properties(keyword, value, place)
            case "items" if isinstance(value, list):
                part["prefixItems"] = list(self._list(keyword, value, place))
            case "items" | "additionalProperties":
                part[keyword] = self._part(value, place.inside(keyword))
            case "additionalItems" if isinstance(schema.get("items"), list):
                part["items"] = self._part(value, place.inside(keyword))
            case "required":
                if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                    place.refuse("expected a list of names", keyword)
                part[keyword] = list(dict.fromkeys(value))
            case "pattern" | "format":
                self._text(keyword, value, part, place)
            case "$ref":
                part[keyword] = self._reference(value, place)
            case _ if keyword in _LISTS:
                part[keyword] = list(self._list(keyword, value, place))
            case _ if keyword in _NUMBERS:
                self._number(keyword, value, part, schema, place)
            case _ if keyword in _COUNTS:
                self._count(keyword, value, part, place)
            case _ if keyword in _UNENFORCED and value != _UNENFORCED[keyword]:
                self._ignored.append(place.at(keyword))

    def _list(self, keyword: str, value: Json, place: _Place) -> Iterator[Json]:
        if not isinstance(value, list) or not value:
            place.refuse("expected a list of schemas, not empty", keyword)
        for number, item in enumerate(value):
            yield self._part(item, place.inside(keyword, number, is_direct=keyword in _ALTERNATIVES))

    def _properties(self, keyword: str, value: Json, place: _Place) -> dict[str, Json]:
        if not isinstance(value, dict):
            place.refuse("expected an object of schemas", keyword)
        for name in value if keyword == "patternProperties" else ():
            reason = self._pattern_objection(name)
            if reason:
                place.refuse(reason, keyword, name)
        return {name: self._part(schema, place.inside(keyword, name)) for name, schema in value.items()}

    def _constants(self, keyword: str, value: Json, place: _Place) -> Json:
        if keyword == "enum" and (not isinstance(value, list) or not value):
            place.refuse("expected a list of values, not empty", keyword)
        level, depth = [value], 1
        while level:
            self._values += len(level)
            if self._values > MAX_VALUES:
                place.refuse(f"more than {MAX_VALUES} constant values in all", keyword)
            if depth > MAX_LEVELS:
                place.refuse(f"a value of more than {MAX_LEVELS} levels", keyword)
            level, depth = [inner for outer in level for inner in _members(outer)], depth + 1
        return value

    def _text(self, keyword: str, value: Json, part: dict[str, Any], place: _Place) -> None:
        if not isinstance(value, str):
            place.refuse("expected a string", keyword)
        reason = self._pattern_objection(value) if keyword == "pattern" else ""
        if reason in (grammar.LOOK_AROUND, grammar.BACK_REFERENCES) or (keyword == "format" and value not in FORMATS):
            self._ignored.append(place.at(keyword))
        elif reason:
            place.refuse(reason, keyword)
        else:
            part[keyword] = value

    def _pattern_objection(self, pattern: str) -> str:
        self._patterns += 1
        if len(pattern) > MAX_PATTERN:
            return f"a regular expression of {len(pattern)} characters is too long, at most {MAX_PATTERN} are read"
        if self._patterns > MAX_TESTED:
            return f"more than {MAX_TESTED} regular expressions in one schema"
        return grammar.pattern_objection(pattern)

    def _number(self, keyword: str, value: Json, part: dict[str, Any], schema: dict[str, Json], place: _Place) -> None:
        if isinstance(value, bool) and keyword.startswith("exclusive"):
            # Draft 4 says with a flag that the limit beside it is exclusive.
            limit = keyword.removeprefix("exclusive").lower()
            if value and _is_number(schema.get(limit)):
                part[keyword] = schema[limit]
            return
        if not _is_number(value):
            place.refuse("expected a number", keyword)
        if keyword == "multipleOf" and value <= 0:
            place.refuse("expected a number greater than 0", keyword)
        is_beyond = value < -LARGE_NUMBER if keyword.lower().endswith("minimum") else value > LARGE_NUMBER
        if keyword == "multipleOf" or not is_beyond:
            part[keyword] = value

    def _count(self, keyword: str, value: Json, part: dict[str, Any], place: _Place) -> None:
        if not _is_number(value) or value < 0 or value != int(value):
            place.refuse("expected a whole number, 0 or more", keyword)
        most = MAX_ITEMS if keyword.endswith("Items") else MAX_LENGTH
        if value > most:
            if keyword.startswith("min"):
                place.refuse(f"an answer that long cannot be asked for, at most {most}", keyword)
            if value <= MAX_LENGTH:
                self._ignored.append(place.at(keyword))
            return
        part[keyword] = int(value)
        if keyword.endswith("Items"):
            self._items += int(value)
            if self._items > MAX_ITEMS_IN_ALL:
                place.refuse(f"arrays of more than {MAX_ITEMS_IN_ALL} items in all", keyword)

    def _reference(self, value: Json, place: _Place) -> str:
        try:
            keys = keys_of(value) if isinstance(value, str) else None
            if keys is None:
                place.refuse("expected a string", "$ref")
            follow(self._root, keys)
        except ValueError:
            place.refuse(f'"{value[:100]}" leads out of the schema, only "#/…" can be followed', "$ref")
        except KeyError:
            place.refuse(f'nothing stands at "{value[:100]}"', "$ref")
        if keys not in self._names:
            name = self._names[keys] = f"d{len(self._names)}"
            self._same[name] = set()
            self._waiting.append((name, keys))
        name = self._names[keys]
        if place.is_direct:
            self._same[place.definition].add(name)
        return pointer("$defs", name)

    def _refuse_loops(self) -> None:
        try:
            graphlib.TopologicalSorter(self._same).prepare()
        except graphlib.CycleError as error:
            keys = next(keys for keys, name in self._names.items() if name == error.args[1][0])
            _Place(keys).refuse("it refers to itself with nothing in between")

    def _settle_one_of(self) -> None:
        """`oneOf` becomes `anyOf`, which is what the engine makes of it; noted where more than one may fit."""
        found = [(place, part) for place, part in self._parts if isinstance(part, dict) and "oneOf" in part]
        choices = [(place, part.pop("oneOf")) for place, part in found]
        for (_, part), (_, options) in zip(found, choices, strict=True):
            if "anyOf" in part:
                part["allOf"] = [*part.get("allOf", ()), {"anyOf": options}]
            else:
                part["anyOf"] = options
        unsure = [(place, options) for place, options in choices if not disjoint(options, self._definitions)]
        for number, (place, options) in enumerate(unsure):
            told = grammar.objection({"oneOf": options, "$defs": self._definitions}) if number < MAX_TESTED else ""
            if number >= MAX_TESTED or told == grammar.ONE_OF:
                self._ignored.append(place.at("oneOf"))

    def _open_ways(self, part: Json) -> int:
        """In how many ways an answer to it may begin; an object's optional properties are a way each."""
        if isinstance(part, bool):
            return 1
        required = part.get("required", ())
        ways = 1 + sum(name not in required for name in part.get("properties", ()))
        for keyword in _ALTERNATIVES:
            ways += sum(map(self._open_ways, part.get(keyword, ())))
        if "$ref" in part:
            name = keys_of(part["$ref"])[1]
            if name not in self._ways:
                self._ways[name] = self._open_ways(self._definitions[name])
            ways += self._ways[name]
        return ways


def _types(value: Json, place: _Place) -> Json:
    for name in value if isinstance(value, list) else [value]:
        if name not in TYPES:
            given = f'"{name[:100]}"' if isinstance(name, str) else "that is no string"
            place.refuse(f"unknown type {given}", "type")
    if value == []:
        place.refuse("expected a type", "type")
    return value


def _imply_type(part: dict[str, Any]) -> None:
    """Small models answer to properties without a type with a number that never ends; nobody meant one."""
    kinds = [kind for kind, keywords in _IMPLIED.items() if not part.keys().isdisjoint(keywords)]
    if len(kinds) == 1 and part.keys().isdisjoint(("$ref", *_ALTERNATIVES)):
        part["type"] = kinds[0]


def _drop_open_counts(part: dict[str, Any], place: _Place, ignored: list[str]) -> None:
    """The engine counts properties only where all that are named are required."""
    if all(name in part.get("required", ()) for name in part.get("properties", ())):
        return
    dropped = [keyword for keyword in ("minProperties", "maxProperties") if part.pop(keyword, None) is not None]
    ignored += map(place.at, dropped)


def _bound_integers(part: dict[str, Any]) -> None:
    """An integer without an end has one where 64 bits end: small models never stop writing digits."""
    kinds = part.get("type", ())
    if "integer" in kinds and "number" not in kinds and "enum" not in part and "const" not in part:
        if "exclusiveMinimum" not in part and part.get("maximum", 0) > -INTEGER_END:
            part.setdefault("minimum", -INTEGER_END)
        if "exclusiveMaximum" not in part and part.get("minimum", 0) < INTEGER_END:
            part.setdefault("maximum", INTEGER_END)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _members(value: Json) -> Iterable[Json]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()
