"""Objects have the properties that are listed, and no others. Part of `policy`; knows parts as `safety` leaves them.

JSON Schema lets an object have any others unless `additionalProperties` says otherwise. Few authors of
schemas mean that, llama.cpp's own grammars do not take it so, and a small model invents properties without end.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from corral.messages import Json

OF_OBJECTS = ("properties", "patternProperties", "required", "additionalProperties", "minProperties", "maxProperties")
"""Keywords that constrain objects only."""
_CONDITIONS = ("if", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef")


def close(parts: Iterable[Json], ignored: Sequence[str]) -> None:
    """Forbids other properties in each part that lists some and says nothing of others.

    Not where several parts speak of the same value, in a schema that combines them or has `ignored` a condition: what
    one of them lists the other must allow.
    """
    objects = [part for part in parts if isinstance(part, dict)]
    if not may_close(ignored):
        return
    if any(_schemas_of_the_value(part) > 1 for part in objects):
        return
    for part in objects:
        if _lists_all(part):
            part["properties"] |= {name: True for name in part.get("required", ()) if name not in part["properties"]}
            part["additionalProperties"] = False


def may_close(ignored: Iterable[str]) -> bool:
    """Whether no condition was left out of a schema: what follows from it may name other properties."""
    return not any(pointer.rpartition("/")[2] in _CONDITIONS for pointer in ignored)


def _schemas_of_the_value(part: dict[str, Any]) -> int:
    """How many schemas say something of the value that this part is for."""
    alternatives = sum(keyword in part for keyword in ("$ref", "anyOf", "oneOf"))
    return alternatives + len(part.get("allOf", ())) + (not part.keys().isdisjoint(OF_OBJECTS))


def _lists_all(part: dict[str, Any]) -> bool:
    """Whether an object can be made of what is listed and required, and nothing is said of more."""
    listed = part.get("properties", {})
    return bool(
        listed
        and part.keys().isdisjoint(("additionalProperties", "patternProperties"))
        and len({*listed, *part.get("required", ())}) >= part.get("minProperties", 0)
    )
