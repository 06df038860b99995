"""Errors as Ollama writes them: kind → status and sentence, and the envelope. Source: spec api §1.4, §21."""

from functools import partial

from starlette.responses import Response

from corral import errors
from corral.errors import CorralError
from corral.golang import gojson
from corral.server.http.dialect import Dialect
from corral.server.http.error_table import STATUSES, Row, Table, error_headers, sentence_of, status_of, statuses_of
from corral.server.http.operation import STRING, an_object
from corral.server.http.streaming import JSON


def _unsupported(error: errors.Unsupported) -> str:
    if error.capability in ("tools", "insert"):
        return f"{error.full_name} does not support {error.capability}"
    if error.capability == "multimodal input":
        return "Multimodal data provided, but model does not support multimodal requests."
    return str(error)


TABLE: Table = {
    **STATUSES,
    errors.InvalidOption: Row(500),
    errors.InvalidFormat: Row(500),
    errors.Unsupported: Row(400, _unsupported),
    errors.RemoteModel: Row(403, lambda _: "ollama cloud is disabled: remote model is unavailable"),
    errors.QueueFull: Row(503, lambda _: "server busy, please try again.  maximum pending requests exceeded"),
}


class ServerFault(errors.BadRequest):
    """A bad request that Ollama answers as a fault of its own, with status 500."""


def dialect(changes: Table | None = None) -> Dialect:
    """Ollama's dialect; `changes` are the rows in which one route differs from the others."""
    table = {**TABLE, ServerFault: Row(500), **(changes or {})}
    return Dialect(
        partial(_answer, table),
        lambda error: _body(table, error) + b"\n",
        name="Ollama",
        envelope=an_object({"error": STRING}),
        statuses=statuses_of(table),
    )


def _answer(table: Table, error: CorralError) -> Response:
    status = status_of(table, error)
    return Response(_body(table, error), status, {"content-type": JSON, **error_headers(status, error)})


def _body(table: Table, error: CorralError) -> bytes:
    return gojson.encode({"error": sentence_of(table, error)})
