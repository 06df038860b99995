"""Schemas judged before the engine sees them: what is wrong is named, what is too much is refused, nothing is lost."""

import json
import subprocess
import sys
from typing import Any

import pytest

from corral import schemas
from corral.errors import BadRequest

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "How to call them", "minLength": 1},
        "born": {"type": "string", "format": "date"},
        "friends": {"type": "array", "items": {"$ref": "#"}, "maxItems": 9007199254740991},
        "pet": {"anyOf": [{"$ref": "#/definitions/Pet [cat]"}, {"type": "null"}], "default": None},
    },
    "required": ["name", "name"],
    "additionalProperties": False,
    "definitions": {"Pet [cat]": {"const": {"kind": "cat"}}, "unused": {"type": "string"}},
}


def refusal(schema: Any, subject: str = "format") -> str:
    with pytest.raises(BadRequest) as refused:
        schemas.judge(schema, subject)
    return str(refused.value)


def test_a_schema_keeps_what_constrains_and_its_references_get_plain_names() -> None:
    person = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "born": {"type": "string", "format": "date"},
            "friends": {"type": "array", "items": {"$ref": "#/$defs/d0"}},
            "pet": {"anyOf": [{"$ref": "#/$defs/d1"}, {"type": "null"}]},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    judged = schemas.judge(PERSON)
    assert judged.value == {**person, "$defs": {"d0": person, "d1": {"const": {"kind": "cat"}}}, **schemas.ON_ONE_LINE}
    assert judged.ignored == ()


@pytest.mark.parametrize(
    ("schema", "pointer", "reason"),
    [
        ({"type": "foo"}, "#/type", 'unknown type "foo"'),
        ({"properties": {"a": {"type": "foo"}}}, "#/properties/a/type", 'unknown type "foo"'),
        (
            {"properties": {"a/b~": {"type": ["string", 3]}}},
            "#/properties/a~1b~0/type",
            "unknown type that is no string",
        ),
        ({"type": []}, "#/type", "expected a type"),
        ({"$ref": "#/nowhere"}, "#/$ref", 'nothing stands at "#/nowhere"'),
        ({"$ref": 5}, "#/$ref", "expected a string"),
        (
            {"items": {"$ref": "http://127.0.0.1/x"}},
            "#/items/$ref",
            '"http://127.0.0.1/x" leads out of the schema, only "#/…" can be followed',
        ),
        ({"$ref": "#"}, "#", "it refers to itself with nothing in between"),
        (
            {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/b"},
            "#/$defs/b",
            "it refers to itself with nothing in between",
        ),
        ({"properties": [1]}, "#/properties", "expected an object of schemas"),
        ({"properties": {"a": [[]]}}, "#/properties/a", "a schema is an object, true or false"),
        ({"required": "a"}, "#/required", "expected a list of names"),
        ({"anyOf": []}, "#/anyOf", "expected a list of schemas, not empty"),
        ({"items": [{}, 1]}, "#/items/1", "a schema is an object, true or false"),
        ({"enum": []}, "#/enum", "expected a list of values, not empty"),
        ({"minLength": -1}, "#/minLength", "expected a whole number, 0 or more"),
        ({"minItems": 1.5}, "#/minItems", "expected a whole number, 0 or more"),
        ({"minimum": "1"}, "#/minimum", "expected a number"),
        ({"multipleOf": 0}, "#/multipleOf", "expected a number greater than 0"),
        ({"pattern": 3}, "#/pattern", "expected a string"),
        ({"pattern": "["}, "#/pattern", "not a regular expression: unclosed character class"),
        (
            {"type": "array", "prefixItems": [{"type": "string", "minLength": 5, "maxLength": 3}], "minItems": 1},
            "#/prefixItems/0",
            "minLength (5) is greater than maxLength (3)",
        ),
        ({"type": "string", "pattern": "^a$", "format": "date"}, "#", "no string fits it"),
        (
            {"type": "object", "required": ["a"], "additionalProperties": False},
            "#",
            "required property 'a' is unsatisfiable",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(schema: Any, pointer: str, reason: str) -> None:
    assert refusal(schema) == f'invalid format: "{pointer}": {reason}'


@pytest.mark.parametrize(
    ("schema", "ignored"),
    [
        ({"type": "array", "uniqueItems": True}, "#/uniqueItems"),
        ({"not": {"type": "string"}}, "#/not"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "#/if"),
        ({"type": "string", "format": "uri"}, "#/format"),
        ({"type": "string", "pattern": r"^(?!\.)a"}, "#/pattern"),
        ({"type": "string", "pattern": r"(a)\1"}, "#/pattern"),
        ({"type": "object", "properties": {"a": {}}, "maxProperties": 3}, "#/maxProperties"),
        ({"type": "array", "maxItems": 5000}, "#/maxItems"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}, "#/oneOf"),
        ({"oneOf": [{"enum": [1, "a"]}, {"enum": [1.0, "b"]}]}, "#/oneOf"),
        ({"oneOf": [{"$ref": "#/$defs/a"}, {"type": "object"}], "$defs": {"a": {"type": "object"}}}, "#/oneOf"),
        ({"oneOf": [{"type": "integer"}, {"type": ["number", "null"]}]}, "#/oneOf"),
        ({"oneOf": [{"type": "object", "properties": {"a": {"const": number}}} for number in (1, 2)]}, "#/oneOf"),
    ],
)
def test_what_cannot_be_enforced_is_left_out_and_named(schema: Any, ignored: str) -> None:
    assert schemas.judge(schema).ignored == (ignored,)


@pytest.mark.parametrize(
    ("schema", "implied"),
    [
        (
            {"properties": {"a": {}}, "required": ["b"]},
            {"type": "object", "properties": {"a": {}, "b": True}, "additionalProperties": False},
        ),
        ({"additionalProperties": False}, {"type": "object"}),
        ({"items": {}, "maxItems": 3}, {"type": "array"}),
        ({"pattern": "^a"}, {"type": "string"}),
        ({"minimum": 3}, {"type": "number"}),
        ({"properties": {}, "items": {}}, {}),
        ({"enum": [1, "a"], "minLength": 1}, {}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "minLength": 1}, {}),
        ({"type": "string", "allOf": [{"minimum": 3}]}, {}),
    ],
)
def test_a_type_that_is_left_out_is_the_one_that_is_meant(schema: Any, implied: Any) -> None:
    assert schemas.judge(schema).value == {**schema, **implied, **schemas.ON_ONE_LINE}


def test_alternatives_imply_types_of_their_own() -> None:
    judged = schemas.judge({"anyOf": [{"required": ["a"]}, {"minLength": 2}]}).value
    assert judged["anyOf"] == [{"required": ["a"], "type": "object"}, {"minLength": 2, "type": "string"}]


def test_whole_numbers_end_where_64_bits_do() -> None:
    for kinds in ("integer", ["integer", "null"]):
        value = schemas.judge({"type": kinds}).value
        assert schemas.accepts_prefix(value, str(2**62))
        assert not schemas.accepts_prefix(value, str(2**64))
    assert schemas.accepts_prefix(schemas.judge({"type": ["integer", "number"]}).value, str(2**64))


PETS = {
    kind: {"type": "object", "properties": {"kind": {"const": kind}, fact: {}}, "required": ["kind", fact]}
    for kind, fact in (("cat", "lives"), ("dog", "tricks"))
}
"""Distinguished by a constant, as typed clients write a union of classes."""


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": False},
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"oneOf": [{"const": True}, {"const": 1}, {"enum": ["a", "b"]}, {"enum": ["c", None]}]},
        {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}, {"type": "null"}], "$defs": PETS},
        {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
        {"type": "string", "maxLength": 4294967295},
        {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
        {},
        {"type": "object", "properties": {"a": True, "b": {"$ref": "#/properties/a"}}},
    ],
)
def test_what_can_be_enforced_is_not_said_to_be_ignored(schema: Any) -> None:
    assert schemas.judge(schema).ignored == ()


def nested(levels: int, innermost: Any = None) -> Any:
    schema: Any = innermost or {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def chain(length: int, last: Any = None) -> Any:
    links = {f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(length)}
    return {"$defs": {**links, f"d{length}": last or {"type": "string"}}, "$ref": "#/$defs/d0"}


def doubling(times: int) -> Any:
    halves = {f"d{i + 1}": {"allOf": [{"$ref": f"#/$defs/d{i}"}] * 2} for i in range(times)}
    return {"$defs": {"d0": {"type": "object"}, **halves}, "$ref": f"#/$defs/d{times}"}


TOO_MUCH = {
    "levels": nested(50),
    "many levels": nested(300),
    "a chain of references": chain(1500),
    "doubled references": doubling(60),
    "items": {"type": "array", "minItems": 1_000_000_000},
    "items in all": {"type": "array", "prefixItems": [{"type": "array", "minItems": 4000}] * 6},
    "optional properties": {"type": "object", "properties": {f"p{i}": {} for i in range(500)}},
    "values": {"enum": [[value] * 10 for value in range(2000)]},
    "a deep value": {"const": json.loads("[" * 60 + "]" * 60)},
    "a long pattern": {"pattern": "a" * 3000},
    "deep parentheses": {"pattern": "(" * 900 + ")" * 900},
    "many patterns": {"anyOf": [{"pattern": f"a{i}"} for i in range(150)]},
    "combinations": {"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {}}} for j in range(3)]} for i in range(20)]},
    "bytes": {"enum": ["x" * 1000] * 300},
    "parts": {"anyOf": [{}] * 5000},
    "length": {"type": "string", "minLength": 10**9},
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_too_much_is_refused_at_once(kind: str) -> None:
    assert refusal(TOO_MUCH[kind]).startswith('invalid format: "#')


AT_THE_LIMIT = [
    nested(49),
    chain(398),
    {"type": "array", "items": {"type": "array", "maxItems": 4096}, "minItems": 4096},
    {"type": "object", "properties": {f"p{i}": {} for i in range(448)}},
    {
        "type": "object",
        "properties": {f"p{i}": {} for i in range(3500)},
        "required": [f"p{i}" for i in range(3500)],
    },
    {"enum": [f"value {i}" for i in range(9000)]},
    {"type": "string", "minLength": 1_000_000},
    {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    nested(48, {"type": "number"}),
    chain(398, {"type": "number"}),
    {"type": "array", "prefixItems": [{"type": "number"}] * 3900},
    {"type": "array", "items": {"type": "number"}, "minItems": 4096},
    {
        "type": "object",
        "properties": {f"p{i}": {"type": "number", "minimum": i, "maximum": i + 1.5} for i in range(448)},
    },
    {"allOf": [{"properties": {f"{name}{i}": {} for i in range(200)}} for name in "ab"]},
]


def test_the_limits_themselves_are_no_harm() -> None:
    """In a process of its own with 2 GB: an accepted schema may neither end the stack nor eat the memory."""
    program = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from corral import schemas
for schema in json.load(sys.stdin):
    schemas.judge(schema)
print("all judged")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(AT_THE_LIMIT), text=True, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, "all judged\n"), done.stderr


def test_what_is_no_json_is_refused() -> None:
    assert refusal({"const": "\ud800"}, "thing") == "invalid thing: it cannot be written as JSON"


NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("schema", "answer", "closed"),
    [
        (NAMED, '{"name": "A"', True),
        ({**NAMED, "required": []}, '{"name": "A"', True),
        ({"$defs": {"P": NAMED}, "properties": {"p": {"$ref": "#/$defs/P"}}}, '{"p": {"name": "A"', True),
        ({"type": "array", "items": {"anyOf": [NAMED, {"type": "null"}]}}, '[{"name": "A"', True),
        ({**NAMED, "additionalProperties": True}, '{"name": "A"', False),
        ({**NAMED, "additionalProperties": {"type": "integer"}}, '{"name": "A"', False),
        ({**NAMED, "required": ["name", "more"]}, '{"name": "A"', False),
        ({**NAMED, "minProperties": 2}, '{"name": "A"', False),
        ({"$defs": {"P": NAMED}, "$ref": "#/$defs/P", "required": ["more"]}, '{"name": "A"', False),
        ({"allOf": [NAMED, {"properties": {"more": {}}}]}, '{"name": "A"', False),
        ({**NAMED, "if": {"required": ["name"]}, "then": {"required": ["more"]}}, '{"name": "A"', False),
        ({"type": "object"}, '{"name": "A"', False),
    ],
)
def test_an_object_has_what_is_listed_unless_there_may_be_more(schema: Any, answer: str, closed: bool) -> None:
    value = schemas.judge(schema).value
    assert schemas.accepts_prefix(value, answer)
    assert schemas.accepts_prefix(value, f'{answer}, "more": 1') is not closed


def test_an_answer_is_admitted_while_it_may_still_fit() -> None:
    given = {"properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": True}
    schema = schemas.judge({"type": "object", **given}).value
    admitted = [schemas.accepts_prefix(schema, text) for text in ("", '{"n', '{ "n": 12', '{"n": 1, "é": "→"}')]
    refused = [schemas.accepts_prefix(schema, text) for text in ("Sure", '{"n": "', '{"n": 1} and', '{"m": 1}')]
    assert (admitted, refused) == ([True] * 4, [False] * 4)
