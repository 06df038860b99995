"""Errors as Anthropic's API writes them: one envelope, also within a stream. Source: spec api §20.2.

Statuses and sentences are those of Ollama's native routes.
"""

from starlette.responses import Response

from corral import errors, telemetry
from corral.errors import CorralError
from corral.golang import gojson
from corral.server.http.dialect import Dialect
from corral.server.http.error_table import STATUSES, Row, Table, retry_headers, sentence_of, status_of, statuses_of
from corral.server.http.events import event
from corral.server.http.operation import STRING, an_object, constant
from corral.server.http.streaming import JSON, PLAIN_JSON

TABLE: Table = {**STATUSES, errors.EmptyBody: Row(400, lambda _: "EOF")}

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def answer(error: CorralError) -> Response:
    """The whole response."""
    status = status_of(TABLE, error)
    content_type = JSON if isinstance(error, errors.BadRequest) else PLAIN_JSON
    headers = {"content-type": content_type, **retry_headers(status, error)}
    return Response(gojson.encode(_envelope(error)) + b"\n", status, headers)


def line(error: CorralError) -> bytes:
    """The last event of a stream that cannot go on."""
    return event(_envelope(error), "error")


def _envelope(error: CorralError) -> dict[str, object]:
    kind = _TYPES.get(status_of(TABLE, error), "api_error")
    described = {"type": kind, "message": sentence_of(TABLE, error)}
    return {"type": "error", "error": described, "request_id": telemetry.request_id.get()}


_ENVELOPE = an_object(
    {"type": constant("error"), "error": an_object({"type": STRING, "message": STRING}), "request_id": STRING}
)

DIALECT = Dialect(
    answer, line, name="Anthropic", envelope=_ENVELOPE, statuses=statuses_of(TABLE), id_header=b"request-id"
)
