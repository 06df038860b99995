"""JSON read as leniently as Go reads it and written exactly as Go writes it (spec api §1.1, §1.2)."""

from typing import Any

import msgspec
import pytest

from corral.errors import BadRequest
from corral.golang import gojson


class WireItem(msgspec.Struct, omit_defaults=True):
    name: str = ""
    count: int = 0


class WireOrder(msgspec.Struct, omit_defaults=True):
    """A request as the routes declare them."""

    model: str = ""
    stream: bool | None = None
    items: list[WireItem] = []
    files: dict[str, str] = {}
    named: dict[str, WireItem] = {}
    options: dict[str, Any] = {}
    ratio: float = 0.0


def read(text: str | bytes) -> WireOrder:
    return gojson.decode(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), WireOrder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"MODEL":"a","Stream":true}', WireOrder(model="a", stream=True)),
        ('{"MODEL":"a","model":"b","Model":"c"}', WireOrder(model="b")),
        ('{"model":"a","model":"b"}', WireOrder(model="b")),
        ('{"unknown":{"x":[1]},"model":"a"}', WireOrder(model="a")),
        ('{"model":null,"items":null,"stream":null}', WireOrder()),
        ("null", WireOrder()),
        ('  {"model":"a"} trailing }{', WireOrder(model="a")),
        (b'{"model":"\xff"}', WireOrder(model="\ufffd")),
        ('{"model":"\\ud800x"}', WireOrder(model="\ufffdx")),
        ('{"model":"\\ud83d\\ude00"}', WireOrder(model="😀")),
        ('{"items":[{"NAME":"x"},null]}', WireOrder(items=[WireItem("x"), WireItem()])),
        ('{"named":{"Key":{"Count":2},"b":null}}', WireOrder(named={"Key": WireItem(count=2)})),
        ('{"options":{"Temperature":1}}', WireOrder(options={"Temperature": 1})),
        ('{"ratio":3}', WireOrder(ratio=3.0)),
    ],
)
def test_reading_is_lenient(text: str | bytes, expected: WireOrder) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "unexpected EOF"),
        ('{"model": ', "unexpected EOF"),
        ('{"model": "x', "unexpected EOF"),
        ("x", "invalid JSON: invalid character (byte 0)"),
        ('  {"model" "x"}', "invalid JSON: expected ':' (byte 11)"),
        ('{"model":"x",}', "invalid JSON: trailing comma in object (byte 13)"),
        ('{"ratio":NaN}', "invalid JSON: invalid character (byte 9)"),
        ('{"model":"a\nb"}', "invalid JSON: invalid character (byte 11)"),
        ('{"ratio":1e999}', "json: cannot unmarshal number 1e999 into Go value of type float64"),
        ('{"ratio":' + "9" * 400 + "}", f"json: cannot unmarshal number {'9' * 40} into Go value of type float64"),
        ("[" * 600 + "]" * 600, "exceeded max depth"),
        ("[" * 100_000, "exceeded max depth"),
        ("[1]", "json: cannot unmarshal array into Go value of type Order"),
        ("3", "json: cannot unmarshal number into Go value of type Order"),
        ('{"stream":"x"}', "json: cannot unmarshal string into Go struct field Order.stream of type bool"),
        ('{"model":3}', "json: cannot unmarshal number into Go struct field Order.model of type string"),
        ('{"items":{}}', "json: cannot unmarshal object into Go struct field Order.items of type []"),
        (
            '{"items":[{"count":1.5}]}',
            "json: cannot unmarshal number into Go struct field Order.items.count of type int",
        ),
        ('{"files":{"a":null}}', "json: cannot unmarshal null into Go struct field Order.files of type string"),
        ('{"options":[]}', "json: cannot unmarshal array into Go struct field Order.options of type map"),
        ('{"ratio":"x"}', "json: cannot unmarshal string into Go struct field Order.ratio of type float64"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": [None, True, 1.5]}, '{"b":1,"a":[null,true,1.5]}'),
        ("<a&b>\u2028\u2029", '"\\u003ca\\u0026b\\u003e\\u2028\\u2029"'),
        ('ä→😀"\\\n', '"ä→😀\\"\\\\\\n"'),
        (WireOrder(model="m", items=[WireItem("x")]), '{"model":"m","items":[{"name":"x"}]}'),
    ],
)
def test_writing_is_exact(value: Any, written: str) -> None:
    assert gojson.encode(value).decode() == written


def test_maps_are_sorted_and_whole_numbers_have_no_point() -> None:
    assert list(gojson.sort_keys({"b": {"d": 1, "c": 2}, "a": 0})) == ["a", "b"]
    assert gojson.encode(gojson.sort_keys({"b": [{"d": 1, "c": 2}]})) == b'{"b":[{"c":2,"d":1}]}'
    assert gojson.encode(gojson.whole_numbers({"a": 1.0, "b": [2.5, 1e20], "c": 1e21})) == (
        b'{"a":1,"b":[2.5,100000000000000000000],"c":1e21}'
    )


@pytest.mark.parametrize(("levels", "is_deeper"), [(1, True), (2, True), (3, False), (4, False)])
def test_depth_counts_lists_and_objects(levels: int, is_deeper: bool) -> None:
    assert gojson.is_deeper({"a": [1]}, levels) is is_deeper
