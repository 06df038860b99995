"""The first pass over a schema from outside: what the engine's compiler can be trusted with.

Every keyword has the form it must have, every size stays within `limits`, every reference leads to something and not
in a circle; what constrains nothing is left out, and what the engine cannot enforce is noted. Knows nothing of what
makes a schema good for a model: that is `policy`.
"""

import graphlib
import math
from collections.abc import Iterator
from typing import Any

from corral.messages import Json
from corral.schemas import grammar
from corral.schemas.draft import Draft, InvalidSchema, Part, Place
from corral.schemas.limits import MAX_BRANCHES, MAX_ITEMS, MAX_LENGTH, Usage
from corral.schemas.pointers import follow, keys_of, pointer

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "unknown")
"""Formats that the engine enforces."""
ALTERNATIVES = ("allOf", "anyOf", "oneOf")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
LARGE_NUMBER = 1e18
"""A bound beyond it bounds nothing a model writes, and the compiler fails at it; it is left out."""

_LISTS = (*ALTERNATIVES, "prefixItems")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_UNENFORCED: dict[str, Json] = {
    **{keyword: {} for keyword in ("if", "contains", "propertyNames", "$dynamicRef", "$recursiveRef")},
    **{keyword: {} for keyword in ("dependentRequired", "dependentSchemas", "dependencies")},
    "not": False,
    "uniqueItems": False,
    "unevaluatedItems": True,
    "unevaluatedProperties": True,
}
"""Keywords that the engine cannot enforce, each with the value that constrains nothing."""


def read(schema: Json, *, leniently: bool = False) -> Draft:
    """A draft of a schema that is safe to compile; references in it lead to `#/$defs/d0`, `d1`, ….

    `InvalidSchema` for what is no schema, is too large, or refers to nothing or to itself. Read `leniently`, such a
    part is left out and noted instead, and types are known by their names in other languages, too.
    """
    return _Reader(schema, leniently).read()


class _Reader:
    def __init__(self, schema: Json, is_lenient: bool) -> None:
        self._schema = schema
        self._is_lenient = is_lenient
        self._usage = Usage()
        self._draft = Draft(schema, {}, [])
        self._names: dict[tuple[str, ...], str] = {}
        """The names of definitions, by the keys that lead to them."""
        self._unread: list[tuple[str, tuple[str, ...]]] = []
        self._direct: dict[str, set[str]] = {"": set()}
        """For each definition those that speak of the same value, because it refers to them directly."""

    def read(self) -> Draft:
        draft = self._draft
        draft.root = self._part(self._schema, Place())
        while self._unread:
            name, keys = self._unread.pop()
            draft.definitions[name] = self._part(follow(self._schema, keys), Place(keys, definition=name))
        while self._has_loop():
            pass
        while self._has_many_branches():
            pass
        return draft

    def _part(self, schema: Json, place: Place, parent: Part | None = None) -> Json:
        self._usage.add_schema(place)
        part = Part(place, schema, parent)
        if isinstance(schema, dict):
            value: dict[str, Json] = {}
            part.value = value
            schema = _with_required_names(schema) if self._is_lenient else schema
            for keyword, given in schema.items():
                self._keyword_or_note(keyword, given, value, schema, part)
        elif not isinstance(schema, bool):
            if not self._is_lenient:
                place.refuse("a schema is an object, true or false")
            self._ignore(place)
            part.value = True
        self._draft.parts.append(part)
        return part.value

    def _keyword_or_note(
        self, keyword: str, given: Json, value: dict[str, Any], schema: dict[str, Json], part: Part
    ) -> None:
        """`_keyword`; what that refuses is left out and noted where the schema is read leniently."""
        says_nothing = (given is None and keyword != "const") or (isinstance(given, bool) and keyword == "required")
        if self._is_lenient and says_nothing:
            return
        try:
            self._keyword(keyword, given, value, schema, part)
        except InvalidSchema as error:
            if not self._is_lenient:
                raise
            self._draft.ignored.append(error.pointer)

    def _keyword(self, keyword: str, given: Json, value: dict[str, Any], schema: dict[str, Json], part: Part) -> None:
        """Puts what a keyword means into `value`. Keywords that constrain nothing are left out."""
        place = part.place
        match keyword:
            case "type":
                value[keyword] = _types(_usual_types(given) if self._is_lenient else given, place)
            case "enum" | "const":
                value[keyword] = self._constants(keyword, given, place)
            case "properties" | "patternProperties":
                value[keyword] = self._properties(keyword, given, place)
            case "items" if isinstance(given, list):
                value["prefixItems"] = list(self._list(keyword, given, part))
            case "items" | "additionalProperties":
                value[keyword] = self._part(given, place.inside(keyword))
            case "additionalItems" if isinstance(schema.get("items"), list):
                value["items"] = self._part(given, place.inside(keyword))
            case "required":
                if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
                    place.refuse("expected a list of names", keyword)
                value[keyword] = list(dict.fromkeys(given))
            case "pattern" | "format":
                self._text(keyword, given, value, place)
            case "$ref":
                value[keyword] = self._reference(given, part)
            case _ if keyword in _LISTS:
                value[keyword] = list(self._list(keyword, given, part))
            case _ if keyword in NUMBERS:
                _number(keyword, given, value, schema, place)
            case _ if keyword in _COUNTS:
                self._count(keyword, given, value, place)
            case _ if keyword in _UNENFORCED and given != _UNENFORCED[keyword]:
                self._ignore(place, keyword)

    def _ignore(self, place: Place, *keywords: str) -> None:
        self._draft.ignored.append(place.at(*keywords))

    def _list(self, keyword: str, given: Json, part: Part) -> Iterator[Json]:
        if not isinstance(given, list) or not given:
            part.place.refuse("expected a list of schemas, not empty", keyword)
        for number, item in enumerate(given):
            yield self._part(item, part.place.inside(keyword, number), part if keyword in ALTERNATIVES else None)

    def _properties(self, keyword: str, given: Json, place: Place) -> dict[str, Json]:
        if not isinstance(given, dict):
            place.refuse("expected an object of schemas", keyword)
        for name in given if keyword == "patternProperties" else ():
            self._usage.add_pattern(name, place, keyword, name)
            reason = grammar.pattern_error(name)
            if reason:
                place.refuse(reason, keyword, name)
        return {name: self._part(schema, place.inside(keyword, name)) for name, schema in given.items()}

    def _constants(self, keyword: str, given: Json, place: Place) -> Json:
        if keyword == "enum" and (not isinstance(given, list) or not given):
            place.refuse("expected a list of values, not empty", keyword)
        self._usage.add_constants(given, place, keyword)
        return given

    def _text(self, keyword: str, given: Json, value: dict[str, Any], place: Place) -> None:
        if not isinstance(given, str):
            place.refuse("expected a string", keyword)
        reason = ""
        if keyword == "pattern":
            self._usage.add_pattern(given, place, keyword)
            reason = grammar.pattern_error(given)
        if reason in (grammar.LOOK_AROUND, grammar.BACK_REFERENCES) or (keyword == "format" and given not in FORMATS):
            self._ignore(place, keyword)
        elif reason:
            place.refuse(reason, keyword)
        else:
            value[keyword] = given

    def _count(self, keyword: str, given: Json, value: dict[str, Any], place: Place) -> None:
        if not _is_number(given) or given < 0 or given != int(given):
            place.refuse("expected a whole number, 0 or more", keyword)
        most = MAX_ITEMS if keyword.endswith("Items") else MAX_LENGTH
        if given > most:
            if keyword.startswith("min"):
                place.refuse(f"an answer that long cannot be asked for, at most {most}", keyword)
            if given <= MAX_LENGTH:
                self._ignore(place, keyword)
            return
        value[keyword] = int(given)
        if keyword.endswith("Items"):
            self._usage.add_items(int(given), place, keyword)

    def _reference(self, given: Json, part: Part) -> str:
        place = part.place
        try:
            keys = keys_of(given) if isinstance(given, str) else None
            if keys is None:
                place.refuse("expected a string", "$ref")
            follow(self._schema, keys)
        except ValueError:
            place.refuse(f'"{given[:100]}" leads out of the schema, only "#/…" can be followed', "$ref")
        except KeyError:
            place.refuse(f'nothing stands at "{given[:100]}"', "$ref")
        if keys not in self._names:
            name = self._names[keys] = f"d{len(self._names)}"
            self._direct[name] = set()
            self._unread.append((name, keys))
        name = self._names[keys]
        if _is_direct(part):
            self._direct[place.definition].add(name)
        return pointer("$defs", name)

    def _has_loop(self) -> bool:
        """Whether a definition referred to itself directly; it is refused or, leniently, anything fits it now."""
        try:
            graphlib.TopologicalSorter(self._direct).prepare()
        except graphlib.CycleError as error:
            name = error.args[1][0]
            place = Place(next(keys for keys, known in self._names.items() if known == name))
            if not self._is_lenient:
                place.refuse("it refers to itself with nothing in between")
            self._ignore(place)
            self._direct[name] = set()
            self._draft.definitions[name] = True
            return True
        return False

    def _has_many_branches(self) -> bool:
        """Whether a part went on in too many ways; it is refused or, leniently, anything fits it now."""
        known: dict[str, int] = {}
        for part in self._draft.parts:
            if _branching_factor(part.value, self._draft.definitions, known) > MAX_BRANCHES:
                if not self._is_lenient:
                    ways = f"in more than {MAX_BRANCHES} ways at once"
                    part.place.refuse(f"an answer may go on {ways}: optional properties, alternatives")
                self._ignore(part.place)
                part.value.clear()
                return True
        return False


def _is_direct(part: Part) -> bool:
    """Whether a part speaks of the same value as the definition it belongs to."""
    while part.parent is not None:
        part = part.parent
    return part.place.level == 1


def _branching_factor(value: Json, definitions: dict[str, Json], known: dict[str, int]) -> int:
    """In how many ways an answer to it may begin; an object's optional properties are a way each."""
    if isinstance(value, bool):
        return 1
    required = value.get("required", ())
    ways = 1 + sum(name not in required for name in value.get("properties", ()))
    for keyword in ALTERNATIVES:
        ways += sum(_branching_factor(option, definitions, known) for option in value.get(keyword, ()))
    if "$ref" in value:
        name = keys_of(value["$ref"])[1]
        if name not in known:
            known[name] = _branching_factor(definitions[name], definitions, known)
        ways += known[name]
    return ways


def _with_required_names(schema: dict[str, Json]) -> dict[str, Json]:
    """The schema with those properties among the required ones that say so themselves, as drafts before 4 had it."""
    properties, listed = schema.get("properties"), schema.get("required")
    parts = properties.items() if isinstance(properties, dict) else ()
    named = [name for name, part in parts if isinstance(part, dict) and part.get("required") is True]
    return schema | {"required": [*(listed if isinstance(listed, list) else ()), *named]} if named else schema


_FOREIGN_TYPES = {
    foreign: name
    for name, words in {
        "string": ("str", "text"),
        "integer": ("int", "long"),
        "number": ("float", "double", "decimal"),
        "boolean": ("bool",),
        "object": ("dict", "map"),
        "array": ("list", "tuple"),
        "null": ("none",),
    }.items()
    for foreign in words
}
"""Types by their names in the languages that tools are written in."""


def _usual_types(given: Json) -> Json:
    """Types by the names that JSON Schema has for them, as far as they are known."""
    if isinstance(given, list):
        return list(dict.fromkeys(_usual_types(name) for name in given if isinstance(name, str)))
    lower = given.lower() if isinstance(given, str) else given
    return _FOREIGN_TYPES.get(lower, lower) if isinstance(lower, str) else given


def _types(given: Json, place: Place) -> Json:
    for name in given if isinstance(given, list) else [given]:
        if name not in TYPES:
            shown = f'"{name[:100]}"' if isinstance(name, str) else "that is no string"
            place.refuse(f"unknown type {shown}", "type")
    if given == []:
        place.refuse("expected a type", "type")
    return given


def _number(keyword: str, given: Json, value: dict[str, Any], schema: dict[str, Json], place: Place) -> None:
    if isinstance(given, bool) and keyword.startswith("exclusive"):
        # Draft 4 says with a flag that the bound beside it is exclusive.
        bound = keyword.removeprefix("exclusive").lower()
        if given and _is_number(schema.get(bound)):
            value[keyword] = schema[bound]
        return
    if not _is_number(given):
        place.refuse("expected a number", keyword)
    if keyword == "multipleOf" and given <= 0:
        place.refuse("expected a number greater than 0", keyword)
    is_beyond = given < -LARGE_NUMBER if keyword.lower().endswith("minimum") else given > LARGE_NUMBER
    if keyword == "multipleOf" or not is_beyond:
        value[keyword] = given


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
