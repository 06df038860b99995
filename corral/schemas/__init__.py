"""JSON Schemas of answers: whether the engine can hold an answer to one, and whether an answer has kept to one.

Knows no model and no engine process. The engine ignores a grammar it cannot compile without a word and writes free
text, and some small schemas cost it gigabytes or its life; so every schema is judged here first: its shape, size and
depth by `clean`, then by the very library that the engine compiles grammars with (`grammar`).
"""

import time
from functools import lru_cache

import msgspec
from msgspec import Struct

from corral.errors import BadRequest
from corral.messages import Json
from corral.schemas import grammar
from corral.schemas.clean import MAX_BYTES, Cleaned, Unfit, clean
from corral.schemas.pointers import relocated

__all__ = ["ON_ONE_LINE", "Schema", "admits", "judge", "relocated"]

ON_ONE_LINE = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}
"""What tells the engine's compiler to let no other white space be written: small models begin and never end it."""

PATIENCE = 0.5
"""Seconds for which parts of a schema are tried one by one to find the one an error is about."""


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
            raise Unfit("#", f"a schema of {len(text)} bytes is too large, at most {MAX_BYTES} are read")
        return _judge(text)
    except Unfit as error:
        raise BadRequest(f'invalid {subject}: "{_shortened(error.pointer)}": {error.reason}') from error
    except (UnicodeError, RecursionError, OverflowError) as error:
        raise BadRequest(f"invalid {subject}: it cannot be written as JSON") from error


def admits(value: Json, text: str) -> bool:
    """Whether `text` is an answer to a judged schema or the beginning of one, whatever its white space."""
    return grammar.admits({key: part for key, part in value.items() if key not in ON_ONE_LINE}, text)


@lru_cache(maxsize=64)
def _judge(text: bytes) -> Schema:
    cleaned = clean(msgspec.json.decode(text))
    reason = grammar.objection(cleaned.value)
    if reason:
        raise _blamed(cleaned, reason)
    whole = cleaned.value if isinstance(cleaned.value, dict) else {}
    return Schema({**whole, **ON_ONE_LINE}, cleaned.ignored)


def _blamed(cleaned: Cleaned, reason: str) -> Unfit:
    """The innermost part that is refused by itself, and why; the whole when each part is fine by itself."""
    patience = time.monotonic() + PATIENCE
    for pointer, part in cleaned.parts:
        told = "" if isinstance(part, bool) else grammar.objection({**part, "$defs": cleaned.definitions})
        if told:
            return Unfit(pointer, told)
        if time.monotonic() > patience:
            break
    return Unfit("#", reason)


def _shortened(pointer: str) -> str:
    return pointer if len(pointer) <= 200 else f"{pointer[:100]}…{pointer[-100:]}"
