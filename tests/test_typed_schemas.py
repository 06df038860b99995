"""Schemas with one type in every part, as templates are shown them that fail at others."""

from typing import Any

import pytest

from corral.schemas import typed

TEXT = {"type": "string"}
TYPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a type stays": (
        {"type": "string", "enum": ["a"], "description": "d"},
        {**TEXT, "enum": ["a"], "description": "d"},
    ),
    "nothing is known": ({"description": "d"}, {"description": "d", "type": "any"}),
    "several": ({"type": ["integer", "string"]}, {"type": "integer"}),
    "or null": ({"type": ["null", "string"]}, {"type": "string", "nullable": True}),
    "null": ({"type": ["null"]}, {"type": "null"}),
    "no text": ({"type": [7]}, {"type": "any"}),
    "an empty type": ({"type": ""}, {"type": "any"}),
    "an empty list": ({"type": []}, {"type": "any"}),
    "texts": ({"enum": ["a", "b"]}, {"enum": ["a", "b"], "type": "string"}),
    "numbers": ({"enum": [1.5, 2]}, {"enum": [1.5, 2], "type": "number"}),
    "truth": ({"enum": [True]}, {"enum": [True], "type": "boolean"}),
    "no values": ({"enum": []}, {"enum": [], "type": "any"}),
    "a list": ({"items": {}}, {"items": {"type": "any"}, "type": "array"}),
    "an object": (
        {"properties": {"type": {"description": "a property of that name"}, "b": TEXT}},
        {
            "properties": {"type": {"description": "a property of that name", "type": "any"}, "b": TEXT},
            "type": "object",
        },
    ),
    "alternatives": (
        {"anyOf": [{"type": "null"}, {"items": TEXT, "description": "inner"}], "description": "outer"},
        {
            "anyOf": [{"type": "null"}, {"items": TEXT, "description": "inner", "type": "array"}],
            "items": TEXT,
            "description": "outer",
            "type": "array",
            "nullable": True,
        },
    ),
    "alternatives beside a type": ({"type": "string", "anyOf": [{}]}, {"type": "string", "anyOf": [{"type": "any"}]}),
    "booleans and words": (
        {"type": "array", "items": True, "anyOf": [True]},
        {"type": "array", "items": True, "anyOf": [True]},
    ),
}


@pytest.mark.parametrize("case", TYPED)
def test_every_part_has_one_type(case: str) -> None:
    given, expected = TYPED[case]
    assert typed(given) == expected
    assert typed(expected) == expected


def test_a_schema_that_is_nested_too_deep_stays() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    assert typed(deep) is deep
