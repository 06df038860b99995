"""Runtime options: names, types, defaults and how they are merged. Knows no engine flag.

Source: spec api §6. Precedence, last wins: built-in defaults, the model's stored parameters, the request's `options`.
"""

import logging
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from corral.errors import BadRequest, InvalidOption
from corral.messages import Json

log = logging.getLogger(__name__)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Every option with its default. None: chosen when the model is loaded."""

    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int | None = None


Kind = Literal["int", "float", "bool", "strings"]

_EXPECTED: dict[Kind, str] = {"int": "integer", "float": "float32", "bool": "boolean", "strings": "array"}
MAX_STOP_WORDS = 256
MAX_STOP_TEXT = 16 << 10
"""Characters of all stop words together: the engine looks for each of them after each token."""

_INT_BOUND = 1 << 63
_FLOAT_BOUND = 3.4e38


def _kind(hint: Any) -> Kind:
    kinds = {int: "int", float: "float", bool: "bool", str: "strings"}
    found = hint if isinstance(hint, type) and hint in kinds else next(t for t in get_args(hint) if t in kinds)
    return kinds[found]  # type: ignore[return-value]


KINDS: dict[str, Kind] = {name: _kind(hint) for name, hint in get_type_hints(Options).items()}
"""Option names and what each takes, in the order of the specification."""


def merge(*layers: Mapping[str, Json]) -> Options:
    """The options after the layers are laid over the defaults, later ones over earlier ones.

    Unknown names and nulls are ignored; `InvalidOption` for a value of a wrong type.
    """
    values: dict[str, Json] = {}
    for layer in layers:
        for name, value in layer.items():
            if name not in KINDS:
                log.warning("unknown option %r is ignored", name)
            elif value is not None:
                values[name] = read(name, value)
    return Options(**values)


def read(name: str, value: Json) -> Json:
    """One option's JSON value in its own type; a fraction given for an integer is cut off.

    `InvalidOption` for another type, `BadRequest` for a number beyond 64 bits or single precision, and for too many
    stop words. What is too large for the engine is cut where the engine is called.
    """
    kind = KINDS[name]
    match kind, value:
        case ("bool", bool()):
            return value
        case ("int", int() | float()) if not isinstance(value, bool):
            return _bounded(name, value)
        case ("float", int() | float()) if not isinstance(value, bool):
            return _finite(name, value)
        case ("strings", list() | tuple()):
            if not all(isinstance(item, str) for item in value):
                raise InvalidOption(name, "an array of strings")
            return _few(name, tuple(value))
        case _:
            raise InvalidOption(name, f"type {_EXPECTED[kind]}")


def _few(name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    if len(words) > MAX_STOP_WORDS or sum(map(len, words)) > MAX_STOP_TEXT:
        most = f"{MAX_STOP_WORDS} of {MAX_STOP_TEXT} characters together"
        raise BadRequest(f'option "{name}" has {len(words)} words, at most {most} are looked for')
    return words


def _bounded(name: str, value: float) -> int:
    if not -_INT_BOUND <= value < _INT_BOUND:
        raise BadRequest(f'option "{name}" is out of range')
    return int(value)


def _finite(name: str, value: float) -> float:
    if not -_FLOAT_BOUND <= value <= _FLOAT_BOUND:
        raise BadRequest(f'option "{name}" is out of range')
    return float(value)
