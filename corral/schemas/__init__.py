"""JSON Schemas of answers: whether the engine can enforce one, and whether an answer fits one.

Knows no model and no engine process. The engine ignores a grammar it cannot compile without a word and writes free
text, and some small schemas cost it gigabytes or its life. So every schema goes through three hands before the engine
sees it: `safety` refuses what is wrong or too large (`limits`), `policy` decides what JSON Schema leaves open, and
`grammar` compiles the outcome with the very library that the engine uses.
"""

import time
from functools import lru_cache

import msgspec
from msgspec import Struct

from corral.errors import BadRequest
from corral.messages import Json
from corral.schemas import grammar, policy, safety
from corral.schemas.draft import Draft, InvalidSchema
from corral.schemas.limits import MAX_BYTES
from corral.schemas.pointers import relocated
from corral.schemas.policy import ON_ONE_LINE

__all__ = ["ON_ONE_LINE", "Schema", "accepts_prefix", "judge", "relocated"]

LOCATE_SECONDS = 0.5
"""How long parts of a schema are compiled one by one to find the one an error is about."""


class Schema(Struct, frozen=True):
    """A schema that the engine can compile."""

    value: dict[str, Json]
    """What the engine gets: only what constrains an answer, every reference one to `#/$defs/…`, and `ON_ONE_LINE`."""

    ignored: tuple[str, ...] = ()
    """Pointers to constraints that no engine enforces while it writes (`uniqueItems`, `not`, …) and are left out."""


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


def accepts_prefix(value: Json, text: str) -> bool:
    """Whether `text` is an answer to a judged schema or the beginning of one, whatever its white space."""
    return grammar.accepts_prefix({key: part for key, part in value.items() if key not in ON_ONE_LINE}, text)


@lru_cache(maxsize=64)
def _judge(text: bytes) -> Schema:
    draft = sanitize(msgspec.json.decode(text))
    value = _with_definitions(draft.root, draft)
    reason = grammar.compile_error(value)
    if reason:
        raise _locate_error(draft, reason)
    return Schema({**(value if isinstance(value, dict) else {}), **ON_ONE_LINE}, tuple(draft.ignored))


def sanitize(schema: Json) -> Draft:
    """`InvalidSchema` for what is no schema, too large, or refers to nothing."""
    draft = safety.read(schema)
    policy.apply(draft)
    return draft


def _with_definitions(value: Json, draft: Draft) -> Json:
    if not draft.definitions:
        return value
    return {**({} if value is True else value), "$defs": draft.definitions}


def _locate_error(draft: Draft, reason: str) -> InvalidSchema:
    """The innermost part that does not compile by itself, and why; the whole when each part does."""
    deadline = time.monotonic() + LOCATE_SECONDS
    for part in draft.parts:
        inner = "" if isinstance(part.value, bool) else grammar.compile_error(_with_definitions(part.value, draft))
        if inner:
            return InvalidSchema(part.place.at(), inner)
        if time.monotonic() > deadline:
            break
    return InvalidSchema("#", reason)


def _shortened(pointer: str) -> str:
    return pointer if len(pointer) <= 200 else f"{pointer[:100]}…{pointer[-100:]}"
