"""Answers under a schema come to an end: a model that would write digits or properties for ever cannot."""

import json
import random
import re
from decimal import Decimal
from typing import Any

import jsonschema
import pytest

from corral import schemas
from corral.inference.constraint import CallsOf, schema_for
from corral.messages import Tool
from corral.schemas import grammar, rules
from corral.schemas.numerals import Bound, Interval, terminal
from tests.grammar_walks import Choose, fits, grammar_of, is_within_string, preferring, written

NUMBER = {"type": "number"}
BIASES = ("0123456789", "9876543210", "1.", ".50", "e9-1", "-.123456789e")
"""What the model would rather write than anything else."""


def named(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


HOLDING_NUMBERS: dict[str, Any] = {
    "alone": NUMBER,
    "one of two types": {"type": ["number", "null"]},
    "beside integers": {"type": ["integer", "number"]},
    "from": {"type": "number", "minimum": 0},
    "to": {"type": "number", "maximum": 7.5},
    "between": {"type": "number", "minimum": -1.25, "maximum": 1.25},
    "above and below": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "below zero": {"type": "number", "maximum": -3},
    "multiples": {"type": "number", "multipleOf": 0.25},
    "whole multiples": {"type": "integer", "multipleOf": 3},
    "without a type": {"minimum": 2},
    "a property": named(a=NUMBER),
    "an optional property": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}},
    "any value": named(a=True, b={}),
    "other properties": {"type": "object", "additionalProperties": NUMBER, "minProperties": 1, "maxProperties": 3},
    "properties by pattern": {"type": "object", "patternProperties": {"^x": NUMBER}, "additionalProperties": False},
    "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 3},
    "items of any kind": {"type": "array", "minItems": 1, "maxItems": 2},
    "a tuple": {"type": "array", "prefixItems": [NUMBER, {"type": "string"}, NUMBER], "items": False, "minItems": 3},
    "a tuple and more": {"type": "array", "prefixItems": [NUMBER], "items": NUMBER, "minItems": 2, "maxItems": 4},
    "alternatives": {"anyOf": [NUMBER, {"type": "boolean"}]},
    "one of": {"oneOf": [NUMBER, {"type": "boolean"}]},
    "alternatives and more": {"type": "number", "anyOf": [{"minimum": 5}, {"maximum": -5}]},
    "all of": {"allOf": [NUMBER, {"minimum": 0.5}]},
    "all of some objects": {"allOf": [named(a=NUMBER), named(b={"$ref": "#/$defs/n"})], "$defs": {"n": NUMBER}},
    "a definition": {"$ref": "#/$defs/n", "$defs": {"n": NUMBER}},
    "a narrowed definition": {"$ref": "#/$defs/n", "minimum": 1, "$defs": {"n": NUMBER}},
    "itself": {"type": "object", "properties": {"n": NUMBER, "next": {"$ref": "#"}}, "required": ["n"]},
    "beside constants": {"anyOf": [{"enum": [1.5, 2]}, {"type": "number", "minimum": 10}]},
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("where", HOLDING_NUMBERS)
def test_a_number_ends_wherever_it_stands(where: str, bias: str) -> None:
    schema = HOLDING_NUMBERS[where]
    answer = written(grammar_of(schemas.judge(schema)), preferring(bias), 1000)
    assert len(answer) < 300
    parse_float = float if "multipleOf" in schema else Decimal  # jsonschema does not divide decimals by floats
    jsonschema.validate(json.loads(answer, parse_float=parse_float), schema)


@pytest.mark.parametrize(
    ("schema", "numbers"),
    [
        (NUMBER, "0 -0.5 3.14159265358979 1e-7 1E-07 6.02e23 -2.5e+10 18446744073709551616 0.30000000000000004 1.0"),
        (NUMBER, "-0.0 123456789.123456789 3.141592653589793 2.220446049250313e-16"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "0 1 0.5 1.0 0.000123 1e-7 2.5E-3 0.99999999999999994"),
        ({"type": "number", "minimum": -90, "maximum": 90}, "-90 90.0 51.4778926 -0.0014 1.5e0 -1e-5"),
        ({"type": "number", "exclusiveMinimum": 0}, "0.01 6.02e23 1e-200 7"),
        ({"type": "number", "maximum": 0}, "0 -1 -6.02e23 -0.001"),
        ({"type": "number", "minimum": 273.15}, "273.15 273.150 274 1e3 5778.0"),
        ({"type": "number", "multipleOf": 0.01}, "0.01 19.99 -19.99 -0.5 7 120"),
        ({"type": "integer", "multipleOf": 5}, "0 5 -15 100"),
        ({"allOf": [NUMBER, {"maximum": 5}]}, "5 4.75 -1e9"),
    ],
)
def test_what_a_model_would_write_fits(schema: Any, numbers: str) -> None:
    judged = schemas.judge(schema)
    assert [number for number in numbers.split() if not fits(grammar_of(judged), number)] == []
    assert [
        number for number in numbers.split() if not schemas.accepts_prefix(judged.value, number, judged.grammar)
    ] == []


@pytest.mark.parametrize(
    ("schema", "numbers"),
    [
        (NUMBER, "01 .5 1. 1e +1 1e999 123456789012345678901 0.123456789012345678901"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "-0.1 1.0001 2 1e0 1.5e-0 10e-1"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "0 0.0 1 1.0 0e5"),
        ({"type": "number", "minimum": 10}, "9.99 1e0 9e0 1e-7 -10"),
        ({"type": "number", "multipleOf": 0.01}, "0.001 -0.005 19.991"),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "2 3.5"),
    ],
)
def test_what_is_no_such_number_does_not_fit(schema: Any, numbers: str) -> None:
    text = grammar_of(schemas.judge(schema))
    assert [number for number in numbers.split() if fits(text, number)] == []


def some_decimal(chance: random.Random) -> str:
    fraction = "".join(chance.choices("0159", k=chance.choice([0, 0, 1, 2])))
    whole = chance.choice(["0", "1", "9", "10", str(chance.randint(0, 300))])
    return chance.choice(["", "-"]) + whole + (f".{fraction}" if fraction else "")


def some_scientific(chance: random.Random) -> str:
    mantissa = chance.choice(["1", "9", "2.5", "1.0"])
    return f"{chance.choice(['', '-'])}{mantissa}e{chance.choice(['', '+', '-'])}{chance.randint(0, 4)}"


@pytest.mark.parametrize("seed", range(5))
def test_bounds_mean_what_arithmetic_says(seed: int) -> None:
    """Decimals fit just if they are within; of scientific notation none that is not."""
    chance = random.Random(seed)
    for _ in range(20):
        low, high = sorted(Decimal(some_decimal(chance)) for _ in range(2))
        least, most = (Bound(value, chance.random() < 0.5) for value in (low, high))
        interval = Interval(chance.choice([None, least]), chance.choice([None, most]))
        if interval.magnitudes() == (None, None):
            continue
        text = f"%llguidance {{}}\nstart: N\nN: {terminal(interval)}\n"
        near = [f"{bound + step:f}" for bound in (low, high) for step in map(Decimal, ("0", "0.00", "0.001", "-0.001"))]
        for number in (*near, *(some_decimal(chance) for _ in range(30))):
            is_negative_zero = number.startswith("-") and Decimal(number) == 0
            assert is_negative_zero or fits(text, number) == is_within(interval, number), (interval, number)
        for number in (some_scientific(chance) for _ in range(30)):
            assert is_within(interval, number) or not fits(text, number), (interval, number)


def is_within(interval: Interval, number: str) -> bool:
    value, least, most = Decimal(number), interval.least, interval.most
    is_above = least is None or value > least.value or (least.is_inclusive and value == least.value)
    return is_above and (most is None or value < most.value or (most.is_inclusive and value == most.value))


@pytest.mark.parametrize(
    ("given", "longest"), [("date-time", 60), ("time", 60), ("duration", 60), ("hostname", 300), ("email", 300)]
)
def test_a_text_of_a_format_ends(given: str, longest: int) -> None:
    def digits(answer: str, options: list[str]) -> str:
        return next((option for option in (*"0123456789", *options) if option in options and option != '"'), '"')

    answer = written(grammar_of(schemas.judge({"type": "string", "format": given})), digits, 1000)
    assert len(answer) < longest
    assert answer.endswith('"')


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("date-time", "2024-02-29T23:59:60.123456789+05:30"),
        ("time", "00:00:00.000000000Z"),
        ("duration", "P1Y2M10DT2H30M"),
        ("email", "a.very.long.name+tag@sub.domain.example.org"),
    ],
)
def test_a_usual_text_of_a_format_fits(given: str, text: str) -> None:
    assert fits(grammar_of(schemas.judge({"type": "string", "format": given})), f'"{text}"')


A, B = named(a={"type": "integer"}), named(b={"type": "integer"})
BOTH = '{"a": 1, "b": 2}'


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"allOf": [A, B]}, BOTH),
        ({"$ref": "#/$defs/B", **A, "$defs": {"B": B}}, BOTH),
        ({**A, "allOf": [{"anyOf": [B, {"required": ["b"]}]}]}, BOTH),
        ({**A, "anyOf": [B, named(c={"type": "integer"})]}, BOTH),
        ({**A, "required": ["a", "b"]}, BOTH),
        (named(o={"allOf": [A, {"allOf": [B]}]}), f'{{"o": {BOTH}'),
        ({"type": "array", "items": {"allOf": [A, B]}}, f"[{BOTH}"),
        ({"anyOf": [{"type": "null"}, {"allOf": [{"$ref": "#/$defs/A"}, B]}], "$defs": {"A": A}}, BOTH),
        ({"allOf": [{**A, "minProperties": 2}, B]}, BOTH),
    ],
)
def test_objects_that_are_combined_have_what_is_listed_and_no_more(schema: Any, answer: str) -> None:
    text = grammar_of(schemas.judge(schema))
    assert grammar.accepts_prefix(text, answer)
    opened = answer.removesuffix("}")
    assert not grammar.accepts_prefix(text, f'{opened}, "')


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [A, {"type": "object", "additionalProperties": True}]},
        {"allOf": [A, {"type": "object", "additionalProperties": {"type": "integer"}}]},
        {**A, "allOf": [{"minProperties": 2}]},
        {"allOf": [A], "if": {"required": ["a"]}, "then": {"required": ["b"]}},
        {**A, "anyOf": [{"type": "object", "patternProperties": {"^b": {"type": "integer"}}}]},
    ],
)
def test_what_is_said_to_be_open_stays_open(schema: Any) -> None:
    assert grammar.accepts_prefix(grammar_of(schemas.judge(schema)), BOTH)


async def test_json_and_forced_calls_end_as_well() -> None:
    tool = Tool(name="heat", parameters=named(degrees=NUMBER, why={"allOf": [{"type": "string"}, {"maxLength": 9}]}))
    combined = Tool(name="move", parameters={"allOf": [named(x=NUMBER), named(y=NUMBER)]})
    calls = await schema_for(CallsOf((tool, combined)))
    assert calls is not None
    for bias in BIASES:
        call = json.loads(written(grammar_of(calls), preferring(bias), 1000))
        assert call["name"] in ("heat", "move")
    moved = '{"name": "move", "arguments": {"x": 1, "y": -2.5}}'
    assert fits(grammar_of(calls), moved)
    assert not fits(grammar_of(calls), moved.replace("-2.5}", '-2.5, "z": 1}'))
    for given in ("json", {}, {"title": "T"}):
        schema = await schema_for(given)
        assert schema is not None
        assert fits(grammar_of(schema), '{"a": [1.5, {"b": -1e-7}], "é": {}}')
        assert not grammar.accepts_prefix(grammar_of(schema), f'{{"a": 0.{"1" * 30}')
        assert not grammar.accepts_prefix(grammar_of(schema), "[")


def any_schema(chance: random.Random, levels: int) -> Any:
    """A schema that holds numbers and combines, as far as `levels` go."""
    kinds = ["string", "number", "bounds", "multiples", "boolean", "enum", "types", "untyped", "any", "ref"]
    kinds += (
        ["object"] * 5 + ["array", "tuple", "tuple", "anyOf", "allOf", "allOf", "narrowed", "map"] if levels else []
    )

    def inner() -> Any:
        return any_schema(chance, levels - 1)

    match chance.choice(kinds):
        case "string":
            return {"type": "string", "maxLength": 3}
        case "bounds":
            low = round(chance.uniform(-20, 20), 2)
            lower, upper = (
                chance.choice(["minimum", "exclusiveMinimum"]),
                chance.choice(["maximum", "exclusiveMaximum"]),
            )
            return {"type": "number", lower: low, upper: low + chance.choice([0.5, 30])}
        case "multiples":
            return {"type": "integer", "multipleOf": 5, "minimum": -9}
        case "enum":
            return {"enum": ["red", 2.5, None, {"k": ["v"]}]}
        case "types":
            return {"type": chance.sample(["number", "string", "null", "integer"], 2), "maxLength": 3, "minimum": 1}
        case "untyped":
            return chance.choice([{"minimum": 3}, {"maxLength": 2}, {"items": NUMBER, "maxItems": 2}])
        case "any":
            return True
        case "ref":
            return {"$ref": chance.choice(["#/$defs/tree", "#/$defs/small"])}
        case "object":
            return any_object(chance, levels)
        case "array":
            return {"type": "array", "items": inner(), "minItems": chance.randint(0, 2), "maxItems": 2}
        case "tuple":
            items = [inner() for _ in range(chance.randint(1, 3))]
            least = chance.randint(0, 4)
            return {"type": "array", "prefixItems": items, "items": NUMBER, "minItems": least, "maxItems": least + 1}
        case "anyOf":
            return {"anyOf": [inner(), inner()]}
        case "allOf":
            return {"allOf": [any_object(chance, levels - 1), any_object(chance, levels - 1)]}
        case "narrowed":
            return {**any_object(chance, levels), "anyOf": [any_object(chance, levels - 1), {"required": ["x"]}]}
        case "map":
            return {"type": "object", "additionalProperties": inner(), "minProperties": 1, "maxProperties": 2}
        case kind:
            return {"type": kind}


def any_object(chance: random.Random, levels: int) -> Any:
    names = chance.sample(["a", "b", "x", 'é"'], chance.randint(1, 3))
    properties = {name: any_schema(chance, levels - 1) if levels > 0 else NUMBER for name in names}
    required = chance.sample(names, chance.randint(0, len(names))) + chance.choice([[], [], ["more"]])
    return {"type": "object", "properties": properties, "required": required}


DEFINITIONS = {
    "tree": {"type": "object", "properties": {"v": NUMBER, "next": {"$ref": "#/$defs/tree"}}, "required": ["v"]},
    "small": {"type": "number", "maximum": 5},
}


def at_random(chance: random.Random) -> Choose:
    """Ends what may end four times of ten."""

    def choose(answer: str, options: list[str]) -> str:
        ends = [option for option in ("", "]", "}", '"') if option in options]
        if ends and chance.random() < (0.6 if is_within_string(answer) else 0.4):
            return chance.choice(ends)
        plain = [option for option in options if option != "\\"]
        return chance.choice(plain or options)

    return choose


@pytest.mark.parametrize("seed", range(24))
def test_the_rules_say_what_the_schema_says(seed: int) -> None:
    """Answers under our grammar fit the schema, and those that the library would let a model write fit our grammar."""
    chance = random.Random(seed)
    schema = {**named(n=NUMBER, given=any_object(chance, 2)), "$defs": DEFINITIONS}
    judged = schemas.judge(schema)
    assert judged.grammar
    for choose in (at_random(chance), preferring(chance.choice(BIASES))):
        answer = written(judged.grammar, choose, 4000)
        jsonschema.validate(json.loads(answer, parse_float=Decimal), schema)
    value = {keyword: part for keyword, part in judged.value.items() if keyword not in schemas.ON_ONE_LINE}
    as_open = rules.write(value, closes_objects=False)
    for _ in range(3):
        answer = written(grammar.of_schema(judged.value), at_random(chance), 1000)
        if len(answer) < 1000 and not re.search(r"\d{19}|[eE][+-]?\d{3}", answer):
            assert fits(as_open, answer), answer
