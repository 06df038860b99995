"""How a dialect writes errors. The table from kinds of errors to statuses and sentences is the dialect's own."""

from collections.abc import Callable

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Scope

from corral.errors import CorralError
from corral.server.http.operation import Schema

_KEY = "corral.dialect"
_NOTE = "corral.note"
_ROUTINE = "corral.routine"
_ID_HEADER = b"x-request-id"


class Dialect(Struct, frozen=True):
    """The two places where an error can be written: before anything was sent, and in a stream that has begun."""

    answer: Callable[[CorralError], Response]
    """The whole response, with its status."""
    line: Callable[[CorralError], bytes]
    """What goes into the stream as its last part."""
    name: str = "Corral"
    """The API's name, as people know it."""
    envelope: Schema | None = None
    """What an error looks like, where it is JSON; else it is a text."""
    statuses: tuple[int, ...] = (401, 403, 500, 503)
    """Of all errors that a route may answer with."""
    id_header: bytes = _ID_HEADER
    """The header in which clients of this API look for the id of their request."""


def set_dialect(scope: Scope, dialect: Dialect) -> None:
    """Says in which dialect this request is answered."""
    scope[_KEY] = dialect


def dialect_of(scope: Scope) -> Dialect:
    """The dialect of this request's route."""
    dialect: Dialect = scope[_KEY]
    return dialect


def id_header_of(scope: Scope) -> bytes:
    """The header for the id of this request, which may have met no route."""
    dialect: Dialect | None = scope.get(_KEY)
    return _ID_HEADER if dialect is None else dialect.id_header


def set_routine(scope: Scope) -> None:
    """Has the line of this request logged for debugging only: it is one of many that tell nobody anything."""
    scope[_ROUTINE] = True


def is_routine(scope: Scope) -> bool:
    return bool(scope.get(_ROUTINE))


def note(scope: Scope, error: CorralError) -> None:
    """Has the line that the log gets for this request say why it failed."""
    scope[_NOTE] = error


def note_of(scope: Scope) -> CorralError | None:
    """The error that was noted; None when all went well."""
    error: CorralError | None = scope.get(_NOTE)
    return error
