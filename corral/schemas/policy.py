"""The second pass over a schema: choices that make answers of small models good, where JSON Schema leaves them open.

Each rule is a function that edits the draft of `safety`. Without any of them a schema compiles as well. Knows nothing
of sizes and forms: what stands in a draft is right.
"""

from typing import Any

from corral.messages import Json
from corral.schemas import grammar
from corral.schemas.closed import OF_OBJECTS, close
from corral.schemas.disjoint import disjoint
from corral.schemas.draft import Draft, Part
from corral.schemas.limits import MAX_COMPILED_ONE_OF
from corral.schemas.safety import ALTERNATIVES, NUMBERS

ON_ONE_LINE: dict[str, dict[str, Any]] = {
    "x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
}
"""What makes the engine's compiler allow no other white space: small models begin with it and never stop."""

INTEGER_END = 9_000_000_000_000_000_000
"""Shortly before 64 bits end: the compiler reckons in floats."""

LONGEST = {"date-time": 40, "time": 30, "duration": 40, "hostname": 253, "email": 254}
"""Characters of texts in a format that by itself lets digits or letters go on without end."""

_IMPLIED = {
    "object": OF_OBJECTS,
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": NUMBERS,
}
"""The type that a schema without one means, by keywords that constrain no other type."""


def apply(draft: Draft) -> None:
    """Edits the parts of a draft, rule by rule."""
    imply_types(draft)
    drop_open_counts(draft)
    bound_integers(draft)
    bound_formats(draft)
    close([part.value for part in draft.parts], draft.ignored)
    turn_one_of_into_any_of(draft)


def imply_types(draft: Draft) -> None:
    """Small models answer to properties without a type with a number that never ends; a number is never meant."""
    for part in [part for part in draft.parts if isinstance(part.value, dict) and not _is_typed(part)]:
        kinds = [kind for kind, keywords in _IMPLIED.items() if not part.value.keys().isdisjoint(keywords)]
        if len(kinds) == 1 and part.value.keys().isdisjoint(("$ref", *ALTERNATIVES)):
            part.value["type"] = kinds[0]


def _is_typed(part: Part | None) -> bool:
    """Whether a type is given by it or by the part whose alternative it is."""
    while part is not None:
        if isinstance(part.value, dict) and not part.value.keys().isdisjoint(("type", "enum", "const")):
            return True
        part = part.parent
    return False


def drop_open_counts(draft: Draft) -> None:
    """The engine counts properties only where all that are named are required."""
    for part, value in _objects(draft):
        if all(name in value.get("required", ()) for name in value.get("properties", ())):
            continue
        dropped = [keyword for keyword in ("minProperties", "maxProperties") if value.pop(keyword, None) is not None]
        draft.ignored += map(part.place.at, dropped)


def bound_integers(draft: Draft) -> None:
    """An integer without an end gets one where 64 bits end: small models never stop writing digits."""
    for _, value in _objects(draft):
        kinds = value.get("type", ())
        if "integer" not in kinds or "number" in kinds or "enum" in value or "const" in value:
            continue
        if "exclusiveMinimum" not in value and value.get("maximum", 0) > -INTEGER_END:
            value.setdefault("minimum", -INTEGER_END)
        if "exclusiveMaximum" not in value and value.get("minimum", 0) < INTEGER_END:
            value.setdefault("maximum", INTEGER_END)


def bound_formats(draft: Draft) -> None:
    """A fraction of a second has no end by its format, and small models find none."""
    for _, value in _objects(draft):
        longest = LONGEST.get(value.get("format", ""))
        if longest and value.get("minLength", 0) <= longest:
            value.setdefault("maxLength", longest)


def turn_one_of_into_any_of(draft: Draft) -> None:
    """`oneOf` becomes `anyOf`, as the engine itself treats it; ignored where more than one option may fit."""
    found = [(part.place, value, value.pop("oneOf")) for part, value in _objects(draft) if "oneOf" in value]
    for _, value, options in found:
        if "anyOf" in value:
            value["allOf"] = [*value.get("allOf", ()), {"anyOf": options}]
        else:
            value["anyOf"] = options
    overlapping = [(place, options) for place, _, options in found if not disjoint(options, draft.definitions)]
    for number, (place, options) in enumerate(overlapping):
        if number >= MAX_COMPILED_ONE_OF or not _compiles_as_one_of(options, draft.definitions):
            draft.ignored.append(place.at("oneOf"))


def _compiles_as_one_of(options: Json, definitions: dict[str, Json]) -> bool:
    return grammar.compile_error({"oneOf": options, "$defs": definitions}) != grammar.ONE_OF


def _objects(draft: Draft) -> list[tuple[Part, dict[str, Any]]]:
    return [(part, part.value) for part in draft.parts if isinstance(part.value, dict)]
