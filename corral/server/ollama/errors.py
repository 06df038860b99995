"""Errors as Ollama writes them: kind → status and sentence, and the envelope. Source: spec api §1.4, §21.

A kind without a row of its own is written as the nearest kind above it that has one; without a sentence in the table it
says what the error itself says.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from starlette.responses import Response

from corral import errors
from corral.errors import CorralError
from corral.golang import gojson
from corral.server.http.dialect import Dialect
from corral.server.http.streaming import JSON


class Row(NamedTuple):
    """How a kind of error is written. None: as the kind above it."""

    status: int | Callable[[Any], int] | None = None
    sentence: Callable[[Any], str] | None = None


Table: TypeAlias = Mapping[type[CorralError], Row]


def _unsupported(error: errors.Unsupported) -> str:
    if error.capability in ("tools", "insert"):
        return f"{error.full_name} does not support {error.capability}"
    if error.capability == "multimodal input":
        return "Multimodal data provided, but model does not support multimodal requests."
    return str(error)


TABLE: Table = {
    CorralError: Row(500),
    errors.BadRequest: Row(400),
    errors.InvalidOption: Row(500),
    errors.InvalidFormat: Row(500),
    errors.Unsupported: Row(400, _unsupported),
    errors.BodyTooLarge: Row(413),
    errors.BodyTooSlow: Row(408),
    errors.Forbidden: Row(403),
    errors.RemoteModel: Row(403, lambda _: "ollama cloud is disabled: remote model is unavailable"),
    errors.NotFound: Row(404),
    errors.NotPublished: Row(500),
    errors.Busy: Row(503),
    errors.QueueFull: Row(503, lambda _: "server busy, please try again.  maximum pending requests exceeded"),
    errors.EngineError: Row(lambda error: error.code or 500),
}


class ServerFault(errors.BadRequest):
    """A bad request that Ollama answers as a fault of its own, with status 500."""


def dialect(changes: Table | None = None) -> Dialect:
    """Ollama's dialect; `changes` are the rows in which one route differs from the others."""
    table = {**TABLE, ServerFault: Row(500), **(changes or {})}
    return Dialect(partial(_answer, table), lambda error: _body(table, error) + b"\n")


def _answer(table: Table, error: CorralError) -> Response:
    status = _status(table, error)
    retry = {"retry-after": "1"} if status == 503 else {}
    return Response(_body(table, error), status, {"content-type": JSON, **retry})


def _status(table: Table, error: CorralError) -> int:
    status = next(row.status for row in _rows(table, error) if row.status is not None)
    return status if isinstance(status, int) else status(error)


def _body(table: Table, error: CorralError) -> bytes:
    sentence = next((row.sentence for row in _rows(table, error) if row.sentence is not None), str)
    return gojson.encode({"error": sentence(error)})


def _rows(table: Table, error: CorralError) -> Iterator[Row]:
    """The rows of an error's kind and of the kinds above it, nearest first."""
    return (table[kind] for kind in type(error).__mro__ if kind in table)
