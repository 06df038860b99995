"""JSON as Go's clients and servers expect it: lenient when read, exact when written. Knows no route and no field.

Source: spec api §1.1 (reading), §1.2 (writing), annex B (texts).
"""

import json
import math
import re
import sys
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from corral.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

WHOLE = "*"
"""The wire name of a struct's field that keeps the whole object it was read from."""

MAX_DEPTH = 512
"""Nesting a request may have. Deeper ones are refused before anything walks them."""

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Compact JSON with `<`, `>`, `&` and the two Unicode line separators escaped, as Go writes it."""
    data = _encoder.encode(value)
    for raw, escaped in _ESCAPES:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def sort_keys(value: Any) -> Any:
    """The same value with every map in alphabetical order, as Go writes maps."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [sort_keys(item) for item in value]
    return value


def whole_numbers(value: Any) -> Any:
    """The same value with floats that are whole as integers: Go writes `100000`, not `100000.0`."""
    match value:
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
        case dict():
            return {key: whole_numbers(item) for key, item in value.items()}
        case list() | tuple():
            return [whole_numbers(item) for item in value]
        case _:
            return value


def decode(data: bytes, kind: type[T]) -> T:
    """One JSON object read into `kind`, as Go would: keys in any case, null for unset, unknown keys ignored.

    A struct with a field of the name `WHOLE` gets the whole object there, as it came.
    Bytes after the value are ignored. `BadRequest` says what is wrong, naming the field and what was expected.
    """
    value = parse(data)
    if value is None:
        value = {}
    try:
        return msgspec.convert(_fold(value, kind) if isinstance(value, dict) else value, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(_wrong_type(kind, error)) from None
    except RecursionError as error:
        raise BadRequest("exceeded max depth") from error


def parse(data: bytes) -> Any:
    """The first JSON value in `data`; `BadRequest` with the reason when there is none."""
    try:
        value = msgspec.json.decode(data)
    except ValueError:  # msgspec's own, and Python's for bytes that are no text or digits without end
        value = _parse_leniently(data)
    except RecursionError:
        raise BadRequest("exceeded max depth") from None
    if is_deeper(value, MAX_DEPTH):
        raise BadRequest("exceeded max depth")
    if _LONG_NUMBER.search(data):
        _refuse_long_numbers(value)
    return _whole_characters(value) if _SURROGATE.search(data) else value


_LONG_NUMBER = re.compile(rb"[0-9]{309}")
"""An integer of so many digits may be more than a float can be."""


def _refuse_long_numbers(value: Any) -> None:
    match value:
        case int() if abs(value) > sys.float_info.max:
            raise _beyond_floats(str(value))
        case list():
            for item in value:
                _refuse_long_numbers(item)
        case dict():
            for item in value.values():
                _refuse_long_numbers(item)


def _beyond_floats(text: str) -> BadRequest:
    return BadRequest(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _whole_characters(value: Any) -> Any:
    """The same value with halves of characters (`\\ud800` alone) replaced by U+FFFD, as they cannot be written."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_whole_characters(item) for item in value]
        case dict():
            return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
        case _:
            return value


def _parse_leniently(data: bytes) -> Any:
    """Allows what msgspec refuses and Go takes: bytes after the value, invalid UTF-8."""
    text = data.decode("utf-8", "replace")
    decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
    try:
        return decoder.raw_decode(text.lstrip(" \t\r\n"))[0]
    except json.JSONDecodeError:
        raise BadRequest(_syntax_error(text)) from None
    except ValueError:
        raise BadRequest("a number has too many digits") from None
    except RecursionError:
        raise BadRequest("exceeded max depth") from None


def _refuse_constant(text: str) -> Any:
    raise json.JSONDecodeError("not JSON", text, 0)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _beyond_floats(text)
    return number


def _syntax_error(text: str) -> str:
    """What is wrong and at which byte, in msgspec's words, which are the same with every Python."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        return "unexpected EOF" if "truncated" in reason else f"invalid JSON: {reason}"
    return "invalid JSON"


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in more than so many levels, `value` itself being the first."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        if not level:
            return False
    return True


def _fold(value: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The members of `value` under the declared names of `kind`; those it does not declare and nulls are left out.

    All of them are under `WHOLE` where `kind` declares that.
    """
    names, nested = _plan(kind)
    found: dict[str, Any] = {}
    exact: set[str] = set()
    for key, member in value.items():
        name = key if key in nested else names.get(key.lower())
        if name is None or (name in exact and key != name):
            continue
        if key == name:
            exact.add(name)
        if member is not None:
            found[name] = _fold_member(member, *nested[name])
    return found | {WHOLE: value} if WHOLE in nested else found


def _fold_member(member: Any, inner: type[msgspec.Struct] | None, is_map: bool) -> Any:
    match member:
        case _ if inner is None:
            return member
        case dict() if is_map:
            return {key: _fold_member(item, inner, False) for key, item in member.items() if item is not None}
        case dict():
            return _fold(member, inner)
        case list():
            return [_fold_member({} if item is None else item, inner, False) for item in member]
        case _:
            return member


@cache
def _plan(kind: type[msgspec.Struct]) -> tuple[dict[str, str], dict[str, tuple[type[msgspec.Struct] | None, bool]]]:
    """Wire names of a struct by their lower-case form; for each the struct inside it, and whether in a map's values."""
    hints = get_type_hints(kind)
    fields = msgspec.structs.fields(kind)
    nested = {field.encode_name: _struct_in(hints[field.name]) for field in fields}
    return {field.encode_name.lower(): field.encode_name for field in fields}, nested


def _struct_in(hint: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint, False
    for argument in get_args(hint):
        inner, is_map = _struct_in(argument)
        if inner is not None:
            return inner, is_map or get_origin(hint) is dict
    return None, False


_MISMATCH = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<given>\w+)`(?: - at `\$\.?(?P<path>.*)`)?")
_GIVEN = {"str": "string", "int": "number", "float": "number"}
_WANTED = {"str": "string", "float": "float64", "array": "[]", "object": "map"}


def _wrong_type(kind: type[msgspec.Struct], error: msgspec.ValidationError) -> str:
    """The field, what was given and what is expected (spec api §1.1)."""
    name = kind.__name__.removeprefix("Wire")
    found = _MISMATCH.fullmatch(str(error))
    if found is None:
        return f"json: cannot unmarshal into {name}: {error}"
    given = _GIVEN.get(found["given"], found["given"])
    if not found["path"]:
        return f"json: cannot unmarshal {given} into Go value of type {name}"
    path = re.sub(r"\[[^]]*\]", "", found["path"])
    kinds = found["wanted"].split(" | ")
    first = next((kind for kind in kinds if kind not in ("bool", "null")), kinds[0])  # a boolean is our addition
    wanted = _WANTED.get(first, first)
    return f"json: cannot unmarshal {given} into Go struct field {name}.{path} of type {wanted}"
