"""Errors as OpenAI's API writes them: one envelope, also within a stream. Source: spec api §17.1.

Statuses and sentences are those of Ollama's native routes.
"""

from functools import partial

from starlette.responses import Response

from corral import errors
from corral.errors import CorralError
from corral.golang import gojson
from corral.server.http.dialect import Dialect
from corral.server.http.error_table import STATUSES, Row, Table, retry_headers, sentence_of, status_of, statuses_of
from corral.server.http.events import event
from corral.server.http.operation import STRING, an_object, nullable
from corral.server.http.streaming import JSON, PLAIN_JSON

TABLE: Table = {**STATUSES, errors.EmptyBody: Row(400, lambda _: "EOF")}


class PreviousNotFound(errors.BadRequest):
    """A `previous_response_id` that is not kept, or not any more."""

    def __init__(self, response_id: str) -> None:
        super().__init__(f"previous response with id '{response_id[:100]}' not found")


class ResponseNotFound(errors.NotFound):
    """The id of a response that is not kept, or not any more."""

    def __init__(self, response_id: str) -> None:
        super().__init__(f"response with id '{response_id[:100]}' not found")


CODES: dict[type[CorralError], str] = {
    errors.ContextExceeded: "context_length_exceeded",
    PreviousNotFound: "previous_response_not_found",
    errors.KeyRequired: "invalid_api_key",
    errors.LimitReached: "rate_limit_exceeded",
}
"""By which clients tell kinds apart, where they do."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

_ENVELOPE = an_object(
    {"error": an_object({"message": STRING, "type": STRING, "param": {"type": "null"}, "code": nullable(STRING)})}
)


def dialect(changes: Table | None = None) -> Dialect:
    """OpenAI's dialect; `changes` are the rows in which one route differs from the others."""
    table = {**TABLE, **(changes or {})}
    return Dialect(
        partial(_answer, table),
        lambda error: event(_envelope(table, error)),
        name="OpenAI",
        envelope=_ENVELOPE,
        statuses=statuses_of(table),
    )


def line(error: CorralError) -> bytes:
    """The last event of a stream that cannot go on."""
    return event(_envelope(TABLE, error))


def _answer(table: Table, error: CorralError) -> Response:
    status = status_of(table, error)
    # Ollama's answers have no charset but where its reader of OpenAI's requests refuses one itself.
    is_refused_early = isinstance(error, errors.BadRequest) and not isinstance(error, errors.ModelRequired)
    content_type = JSON if is_refused_early else PLAIN_JSON
    headers = {"content-type": content_type, **retry_headers(status, error)}
    return Response(gojson.encode(_envelope(table, error)), status, headers)


def _envelope(table: Table, error: CorralError) -> dict[str, object]:
    kind = _TYPES.get(status_of(table, error), "api_error")
    code = next((code for of, code in CODES.items() if isinstance(error, of)), None)
    return {"error": {"message": sentence_of(table, error), "type": kind, "param": None, "code": code}}
