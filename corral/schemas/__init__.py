"""JSON Schemas of answers: whether the engine can enforce one, and whether an answer fits one.

Knows no model and no engine process. The engine ignores a grammar it cannot compile without a word and writes free
text, and some small schemas cost it gigabytes or its life. So every schema goes through three hands before the engine
sees it: `safety` refuses what is wrong or too large (`limits`), `policy` decides what JSON Schema leaves open, and
`grammar` compiles the outcome with the very library that the engine uses. What that library would let go on without end
is written as a grammar of ours (`rules`).
"""

import time
from collections.abc import Iterable
from functools import lru_cache

import msgspec
from msgspec import Struct

from corral.errors import BadRequest
from corral.messages import Json
from corral.schemas import grammar, policy, rules, safety
from corral.schemas.closed import may_close
from corral.schemas.draft import Draft, InvalidSchema, Part
from corral.schemas.limits import MAX_BYTES
from corral.schemas.pointers import relocated
from corral.schemas.policy import ON_ONE_LINE
from corral.schemas.typed import typed

__all__ = ["ANY_OBJECT", "ON_ONE_LINE", "Schema", "accepts_prefix", "judge", "loosened", "plain", "relocated", "typed"]

MAX_LOOSENED = 20
"""Parts of a schema that are opened because they do not compile, before the whole of it is."""

LOCATE_SECONDS = 0.5
"""How long parts of a schema are compiled one by one to find the one an error is about."""


class Schema(Struct, frozen=True):
    """A schema that the engine can compile."""

    value: dict[str, Json]
    """Only what constrains an answer, every reference one to `#/$defs/…`, and `ON_ONE_LINE`."""

    ignored: tuple[str, ...] = ()
    """Pointers to constraints that no engine enforces while it writes (`uniqueItems`, `not`, …) and are left out."""

    grammar: str = ""
    """The same as a grammar of llguidance's, in which every number ends and objects that are combined are closed.

    Empty where the value says as much.
    """


ANY_OBJECT = Schema({"type": "object", "additionalProperties": True}, ("#",))
"""What is left of a schema of which nothing can be used."""


def judge(given: Json, subject: str = "format") -> Schema:
    """The schema as the engine gets it. `BadRequest`, `invalid SUBJECT: "POINTER": why`, when it cannot be used.

    Takes 1 ms as a rule and up to some hundred, so it belongs in a thread; the last schemas are remembered.
    """
    try:
        text = msgspec.json.encode(given)
        if len(text) > MAX_BYTES:
            raise InvalidSchema("#", f"a schema of {len(text)} bytes is too large, at most {MAX_BYTES} are read")
        return _judge(text)
    except InvalidSchema as error:
        raise BadRequest(f'invalid {subject}: "{_shortened(error.pointer)}": {error.reason}') from error
    except (UnicodeError, RecursionError, OverflowError) as error:
        raise BadRequest(f"invalid {subject}: it cannot be written as JSON") from error


def loosened(given: Json) -> Schema:
    """The schema of an object as far as it can be used: what `judge` would refuse is left out and among the `ignored`.

    Takes as long as `judge`. In its value references lead to `#/$defs/…` within it; `ON_ONE_LINE` is not there.
    """
    try:
        text = msgspec.json.encode(given)
    except (UnicodeError, RecursionError, OverflowError):
        return ANY_OBJECT
    return _loosened(text) if len(text) <= MAX_BYTES else ANY_OBJECT


def plain(value: Json) -> Json:
    """The keywords of a `loosened` value that any compiler of grammars knows; `{}` for `true` and `false`."""
    if not isinstance(value, dict):
        return {}
    kept: dict[str, Json] = {}
    for keyword, given in value.items():
        match keyword:
            case "type" | "enum" | "const" | "required" | "$ref":
                kept[keyword] = given
            case "properties" | "$defs":
                kept[keyword] = {name: plain(part) for name, part in given.items()}
            case "items" | "additionalProperties" if isinstance(given, dict):
                kept[keyword] = plain(given)
            case "anyOf" | "allOf" | "prefixItems":
                kept[keyword] = [plain(part) for part in given]
    return kept


def accepts_prefix(value: Json, text: str, own_grammar: str = "") -> bool:
    """Whether `text` is an answer to a judged schema or the beginning of one, whatever its white space.

    `own_grammar`: the schema's `grammar`, which has numbers that the value has not.
    """
    if own_grammar and grammar.accepts_prefix(own_grammar, text):
        return True
    spaced = {key: part for key, part in value.items() if key not in ON_ONE_LINE}
    return grammar.accepts_prefix(grammar.of_schema(spaced), text)


@lru_cache(maxsize=64)
def _judge(text: bytes) -> Schema:
    draft = sanitize(msgspec.json.decode(text))
    value = _with_definitions(draft.root, draft)
    reason = grammar.compile_error(value)
    if reason:
        part, why = _failing_part(draft, reason)
        raise InvalidSchema("#" if part is None else part.place.at(), why)
    parts = value if isinstance(value, dict) else {}
    return Schema({**parts, **ON_ONE_LINE}, tuple(draft.ignored), _grammar_of(parts, draft.ignored))


def _grammar_of(value: dict[str, Json], ignored: Iterable[str]) -> str:
    """A grammar of ours for what the library reads otherwise; empty where it is too large for the library."""
    written = rules.write(value, closes_objects=may_close(ignored))
    return "" if written and grammar.error_of(written) else written


@lru_cache(maxsize=64)
def _loosened(text: bytes) -> Schema:
    given = msgspec.json.decode(text)
    draft = sanitize(given, leniently=True)
    if not isinstance(draft.root, dict):
        return ANY_OBJECT
    if "properties" not in draft.root and isinstance(given, dict) and given.get("properties"):
        draft.root["additionalProperties"] = True  # what they are is not known any more
    for _ in range(MAX_LOOSENED):
        value = _with_definitions(draft.root, draft)
        reason = grammar.compile_error(value)
        if not reason:
            return Schema(value, tuple(draft.ignored))
        part, _ = _failing_part(draft, reason)
        if part is None or part.value is draft.root:
            break
        draft.ignored.append(part.place.at())
        part.value.clear()
    return ANY_OBJECT


def sanitize(schema: Json, *, leniently: bool = False) -> Draft:
    """`InvalidSchema` for what is no schema, too large, or refers to nothing, unless it is read `leniently`."""
    draft = safety.read(schema, leniently=leniently)
    policy.apply(draft)
    return draft


def _with_definitions(value: Json, draft: Draft) -> Json:
    if not draft.definitions:
        return value
    return {**({} if value is True else value), "$defs": draft.definitions}


def _failing_part(draft: Draft, reason: str) -> tuple[Part | None, str]:
    """The innermost part that does not compile by itself, and why; none and `reason` when each part does."""
    deadline = time.monotonic() + LOCATE_SECONDS
    for part in draft.parts:
        inner = "" if isinstance(part.value, bool) else grammar.compile_error(_with_definitions(part.value, draft))
        if inner:
            return part, inner
        if time.monotonic() > deadline:
            break
    return None, reason


def _shortened(pointer: str) -> str:
    return pointer if len(pointer) <= 200 else f"{pointer[:100]}…{pointer[-100:]}"
