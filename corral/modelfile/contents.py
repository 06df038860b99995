"""What a Modelfile's commands come to: which of them count, and the parameters in their types. Source: spec cli §7."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from corral.errors import InvalidModelfile
from corral.messages import Json
from corral.modelfile.grammar import ROLES, Command, Modelfile
from corral.options import KINDS

__all__ = ["DEPRECATED", "ROLES", "Contents", "contents", "read_parameter"]

_MIROSTAT = ("mirostat", "mirostat_tau", "mirostat_eta")
DEPRECATED = frozenset(
    ("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", *_MIROSTAT),
)
"""Parameters that mean nothing any more; they are passed over."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_WHOLE_WITH_EXPONENT = re.compile(r"[+-]?[0-9](\.[0-9]{1,18})?e\+[0-9]{2}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?")
_LARGEST_FLOAT = 3.4028235e38
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_NUMBER_OF_VERSION = r"(?:0|[1-9][0-9]*+)"
_SUFFIX = r"[0-9A-Za-z-]++(?:\.[0-9A-Za-z-]++)*+"
_VERSION = re.compile(
    rf"v?({_NUMBER_OF_VERSION}(?:\.{_NUMBER_OF_VERSION}(?:\.{_NUMBER_OF_VERSION}(?:-{_SUFFIX})?(?:\+{_SUFFIX})?)?)?)"
)
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Contents:
    """What a new model is to be. Texts are empty where the Modelfile has none."""

    sources: tuple[str, ...]
    """The values of FROM: paths or names."""
    adapter: str = ""
    draft: str = ""
    template: str = ""
    system: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    licenses: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    """Role and text."""
    parameters: Mapping[str, Json] | None = None
    deprecated: tuple[str, ...] = ()
    """Names of parameters that were passed over."""


def contents(modelfile: Modelfile) -> Contents:
    """Lays the commands together: of most the last one counts; `InvalidModelfile` for a value that cannot be read."""
    texts: dict[str, str] = {}
    parameters: dict[str, Json] = {}
    lists: dict[str, list[str]] = {"from": [], "license": []}
    messages: list[tuple[str, str]] = []
    deprecated: list[str] = []
    for command in modelfile.commands:
        match command.name:
            case "parameter" if command.argument in DEPRECATED:
                deprecated.append(command.argument)
            case "parameter":
                _add_parameter(parameters, command)
            case "message":
                messages.append((command.argument, command.value))
            case "from" | "license":
                lists[command.name].append(command.value)
            case "requires":
                texts["requires"] = _version(command)
            case _:
                texts[command.name] = command.value
    return Contents(
        sources=tuple(lists["from"]),
        licenses=tuple(lists["license"]),
        messages=tuple(messages),
        parameters=parameters,
        deprecated=tuple(deprecated),
        **texts,
    )


def read_parameter(name: str, text: str) -> Json:
    """A parameter's value in its type, a string for one of `stop`; `ValueError` with a sentence.

    None for a deprecated one.
    """
    if name in DEPRECATED:
        return None
    match KINDS.get(name):
        case "int":
            if _WHOLE.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
                return int(text)
            if _WHOLE_WITH_EXPONENT.fullmatch(text) and float(text).is_integer() and abs(float(text)) < 1 << 53:
                return int(float(text))  # as Ollama writes numbers of more than six digits, and does not read them
            raise ValueError(f"invalid int value [{text}]")
        case "float":
            if _NUMBER.fullmatch(text) and isfinite(float(text)) and abs(float(text)) <= _LARGEST_FLOAT:
                return float(text)
            raise ValueError(f"invalid float value [{text}]")
        case "bool":
            if text in _BOOLS:
                return _BOOLS[text]
            raise ValueError(f"invalid bool value [{text}]")
        case "strings":
            return text
        case _:
            raise ValueError(f"unknown parameter '{name}'")


def _add_parameter(parameters: dict[str, Json], command: Command) -> None:
    try:
        value = read_parameter(command.argument, command.value)
    except ValueError as error:
        raise _error(str(error), command, f"PARAMETER {command.argument} ") from None
    if KINDS[command.argument] == "strings":
        parameters.setdefault(command.argument, []).append(value)
    else:
        parameters[command.argument] = value


def _version(command: Command) -> str:
    matched = _VERSION.fullmatch(command.value)
    if matched is None:
        raise _error("requires must be a valid semver (e.g. 0.14.0)", command, "REQUIRES ")
    return matched[1]


def _error(sentence: str, command: Command, head: str) -> InvalidModelfile:
    lines = command.value.splitlines() or [""]
    shown = lines[0][:_SHOWN] + ("…" if len(lines) > 1 or len(lines[0]) > _SHOWN else "")
    return InvalidModelfile(f"{sentence}\nline {command.line}: {head}{shown}", command.line)
