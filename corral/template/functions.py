"""The functions a Go template may call: those of text/template and four more (spec cli §14.2). All pure, all bounded.

`and` and `or` decide which of their operands are evaluated, so they are the executor's business and only named here.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Final
from urllib.parse import quote_plus

from corral.errors import TemplateError
from corral.template.printf import sprintf
from corral.template.values import JsonList, Struct, Value, text, to_json


def is_true(value: Value) -> bool:
    """False for false, 0, "", nil, an empty list and an empty map. A struct is always true."""
    return True if isinstance(value, Struct) else bool(value)


def length(value: Value) -> int:
    """Bytes of a string, entries of anything else."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict) and not isinstance(value, Struct):
        return len(value)
    raise TemplateError(f"len of type {type_name(value)}")


def index(value: Value, *keys: Value) -> Value:
    """`index x 1 "a"` is x[1]["a"]; a missing key is nil, an index out of range an error."""
    for key in keys:
        if isinstance(value, dict) and not isinstance(value, Struct):
            value = value.get(key) if isinstance(key, str) else None
        elif isinstance(value, list | str):
            sequence = value.encode() if isinstance(value, str) else value
            value = sequence[_position(key, len(sequence) - 1)]
        else:
            raise TemplateError(f"can't index item of type {type_name(value)}")
    return value


def slice_(value: Value, *ends: Value) -> Value:
    """`slice x 1 2` is x[1:2], in bytes for a string."""
    if not isinstance(value, list | str):
        raise TemplateError(f"can't slice item of type {type_name(value)}")
    sequence = value.encode() if isinstance(value, str) else value
    if len(ends) > (2 if isinstance(value, str) else 3):
        raise TemplateError("too many slice indexes")
    places = [_position(end, len(sequence)) for end in ends]
    if places != sorted(places):
        raise TemplateError(f"invalid slice index: {places[0]} > {places[-1]}")
    part = sequence[(places or [0])[0] : (places[1] if len(places) > 1 else len(sequence))]
    if isinstance(part, bytes):
        return part.decode("utf-8", "replace")
    return JsonList(part) if isinstance(value, JsonList) else part


def _position(key: Value, last: int) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise TemplateError(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= last:
        raise TemplateError(f"index out of range: {key}")
    return key


def equal(first: Value, *others: Value) -> bool:
    """Whether the first equals any of the others, which are looked at up to the one that it equals.

    Only basic types compare; nil equals nothing but nil.
    """
    if not others:
        raise TemplateError("missing argument for comparison")
    kind = _basic_kind(first)
    for other in others:
        other_kind = _basic_kind(other)
        if kind != other_kind and "nil" not in (kind, other_kind):
            raise TemplateError("incompatible types for comparison")
        if kind == other_kind and first == other:
            return True
    return False


def _basic_kind(value: Value) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "string"
        case _:
            raise TemplateError(f"non-comparable type {type_name(value)}")


def less(first: Value, second: Value) -> bool:
    kind, other = _basic_kind(first), _basic_kind(second)
    if kind != other:
        raise TemplateError("incompatible types for comparison")
    if kind not in ("int", "float", "string"):
        raise TemplateError("invalid type for comparison")
    return bool(first < second)


def printf(pattern: Value, *values: Value) -> str:
    """Go's `fmt.Sprintf`; lists and maps count as the text they print as."""
    if not isinstance(pattern, str):
        raise TemplateError(f"wrong type for value; expected string; got {type_name(pattern)}")
    return sprintf(pattern, *map(_printable, values))


def _printable(value: Value) -> Value:
    return text(value) if isinstance(value, list | dict) else value


def print_(*values: Value) -> str:
    """Go's `fmt.Sprint`: a blank between two neighbours when neither is a string."""
    pieces: list[str] = []
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            pieces.append(" ")
        pieces.append("<nil>" if value is None else text(value))
    return "".join(pieces)


def println(*values: Value) -> str:
    """Go's `fmt.Sprintln`: blanks between all, a line end."""
    return " ".join("<nil>" if value is None else text(value) for value in values) + "\n"


def html(*values: Value) -> str:
    """Escaped for HTML text and attributes."""
    return print_(*values).translate(_HTML)


_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})


def js(*values: Value) -> str:
    """Escaped for a JavaScript string."""
    return print_(*values).translate(_JS)


_JS = str.maketrans(
    {code: f"\\u{code:04X}" for code in (*range(0x20), *map(ord, "<>&="), 0x7F, 0x2028, 0x2029)}
    | {ord(quote): f"\\{quote}" for quote in "\\'\""}
)


def urlquery(*values: Value) -> str:
    """Escaped for the query of a URL."""
    return quote_plus(print_(*values), safe="")


def current_date(*_: Value) -> str:
    """Today, YYYY-MM-DD; a format is accepted and ignored."""
    return date.today().isoformat()


def yesterday_date(*_: Value) -> str:
    return (date.today() - timedelta(days=1)).isoformat()


def typescript_type(prop: Value) -> str:
    """The TypeScript type of a tool's property (spec cli §14.2)."""
    if not isinstance(prop, dict):
        raise TemplateError(f"wrong type for value; expected api.ToolProperty; got {type_name(prop)}")
    if prop.get("AnyOf"):
        return " | ".join(map(typescript_type, prop["AnyOf"]))
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in prop.get("Type") or ["any"])


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def type_name(value: Value) -> str:
    """The Go type a value would have, for error texts."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Struct():
            return "struct"
        case dict():
            return "map[string]interface {}"
        case _:
            return "[]interface {}"


LAZY: Final = frozenset({"and", "or"})

FUNCTIONS: Final[dict[str, Callable[..., Value]]] = {
    "and": is_true,
    "or": is_true,
    "not": lambda value: not is_true(value),
    "eq": equal,
    "ne": lambda first, second: not equal(first, second),
    "lt": less,
    "le": lambda first, second: less(first, second) or equal(first, second),
    "gt": lambda first, second: less(second, first),
    "ge": lambda first, second: not less(first, second),
    "len": length,
    "index": index,
    "slice": slice_,
    "print": print_,
    "printf": printf,
    "println": println,
    "html": html,
    "js": js,
    "urlquery": urlquery,
    "json": to_json,
    "currentDate": current_date,
    "yesterdayDate": yesterday_date,
    "toTypeScriptType": typescript_type,
}
"""By the name a template uses. `call` is missing: nothing a template holds can be called."""
