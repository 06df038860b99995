"""Values that a model wrote as bare text: what the tool's schema declares says what they are (spec cli §16.3)."""

from collections.abc import Mapping
from typing import Any

from corral.messages import Json, Tool
from corral.parsers.calls import decode


def properties(tool: Tool | None) -> Mapping[str, Any]:
    """The schemas of a tool's arguments by their names; none for an unknown tool."""
    found = tool.parameters.get("properties") if tool is not None else None
    return found if isinstance(found, dict) else {}


def typed(text: str, declared: Any) -> Json:
    """The value as the schema declares it; text where it is none of that. A line end on either side goes."""
    text = text.removeprefix("\n").removesuffix("\n")
    if text.strip().lower() == "null":
        return None
    kinds = _kinds(declared)
    if "boolean" in kinds:
        lowered = text.strip().lower()
        if lowered in ("true", "false"):
            return lowered == "true"
        if kinds == {"boolean"}:
            return False
    try:
        value = decode(text)
    except ValueError:
        return text
    if isinstance(value, float) and value.is_integer() and kinds & {"integer", "number"}:
        value = int(value)
    return value if _JSON_KINDS.get(type(value), set()) & kinds else text


_JSON_KINDS = {int: {"integer", "number"}, float: {"number"}, list: {"array"}, dict: {"object"}}
"""Types of JSON Schema that a value which is no text may be declared as."""


def _kinds(declared: Any) -> set[str]:
    """The types that a property's schema allows."""
    if not isinstance(declared, dict):
        return set()
    found = declared.get("type")
    kinds = {found} if isinstance(found, str) else set()
    if isinstance(found, list):
        kinds |= {kind for kind in found if isinstance(kind, str)}
    for one in declared.get("anyOf") or () if isinstance(declared.get("anyOf"), list) else ():
        if isinstance(one, dict) and isinstance(one.get("type"), str):
            kinds.add(one["type"])
    return kinds
