"""What the flags of `run` ask for: of the model, and of how its answers are shown. Source: spec cli §4.1."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from corral.cli.paths import typed_path
from corral.errors import BadRequest, reason_of
from corral.golang import durations
from corral.messages import Think

THINK_LEVELS = ("high", "medium", "low", "max")


MAX_SCHEMA_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Members of each request to the model; None leaves a member out."""

    format: Any
    """`json` or a JSON Schema."""
    think: Think
    """None: as the model can."""
    keep_alive: float | None
    """Seconds that the model stays loaded after the request; `inf` is for ever."""


@dataclass(frozen=True, slots=True)
class DisplayOptions:
    """How answers are shown."""

    wrap: bool = True
    hide_thinking: bool = False
    verbose: bool = False
    """Whether timings follow an answer."""
    markdown: bool = False
    """Whether an answer is formatted as the Markdown that it is, where a terminal can show that."""


def parse_format(text: str) -> Any:
    """`json`, a JSON Schema or the path of a file with one; None for an empty text. `BadRequest` for anything else."""
    if not text:
        return None
    if text == "json":
        return text
    path = None if text.lstrip().startswith("{") else _schema_file(text)
    try:
        value = json.loads(text if path is None else path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    except OSError as error:
        raise BadRequest(f'cannot read "{path}": {reason_of(error)}') from error
    if isinstance(value, dict):
        return value
    if path is not None:
        raise BadRequest(f'invalid format: "{path}" holds no JSON Schema, an object')
    raise BadRequest(
        f'invalid format "{text}": it must be json, a JSON Schema, an object, or the path of a file with one'
    )


def _schema_file(text: str) -> Path | None:
    """The file that a text names, when there is one."""
    path = typed_path(text)
    try:
        return path if path.is_file() and path.stat().st_size <= MAX_SCHEMA_BYTES else None
    except (OSError, ValueError):
        return None


def parse_think(text: str | None) -> Think:
    match text:
        case None:
            return None
        case "true":
            return True
        case "false":
            return False
        case _ if text in THINK_LEVELS:
            return cast(Think, text)
    raise BadRequest(f'invalid value for --think: "{text}" (must be true, false, high, medium, low, or max)')


def parse_keep_alive(text: str) -> float | None:
    """Seconds of a Go duration; a negative one is for ever. None for an empty text."""
    return durations.keep_alive(text) if text else None
