"""JSON pointers within a schema: written, followed, moved. Knows nothing of what a schema means."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from corral.messages import Json


def pointer(*keys: str | int) -> str:
    """`#/properties/a`; keys as RFC 6901 wants them."""
    return "#" + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def keys_of(reference: str) -> tuple[str, ...]:
    """The keys a reference within the document names, URI escapes undone; `ValueError` for any other reference."""
    if reference in ("#", "#/"):
        return ()
    if not reference.startswith("#/"):
        raise ValueError(reference)
    return tuple(unquote(key).replace("~1", "/").replace("~0", "~") for key in reference[2:].split("/"))


def follow(document: Json, keys: Sequence[str]) -> Json:
    """What stands there; `KeyError` when nothing does."""
    found = document
    for key in keys:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise KeyError(key)
    return found


def relocated(schema: Json, *keys: str) -> Json:
    """A schema whose references still hold when it stands under `keys` of a larger one."""
    prefix = pointer(*keys)

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: _moved_reference(item, prefix) if key == "$ref" else moved(item) for key, item in value.items()}

    return moved(schema)


def _moved_reference(reference: Json, prefix: str) -> Json:
    is_local = isinstance(reference, str) and reference.startswith("#")
    return prefix + reference[1:].rstrip("/") if is_local else reference
