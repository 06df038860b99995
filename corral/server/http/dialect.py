"""How a dialect writes errors. The table from kinds of errors to statuses and sentences is the dialect's own."""

from collections.abc import Callable

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Scope

from corral.errors import CorralError

_KEY = "corral.dialect"
_NOTE = "corral.note"


class Dialect(Struct, frozen=True):
    """The two places where an error can be written: before anything was sent, and in a stream that has begun."""

    answer: Callable[[CorralError], Response]
    """The whole response, with its status."""
    line: Callable[[CorralError], bytes]
    """What goes into the stream as its last part."""


def set_dialect(scope: Scope, dialect: Dialect) -> None:
    """Says in which dialect this request is answered."""
    scope[_KEY] = dialect


def dialect_of(scope: Scope) -> Dialect:
    """The dialect of this request's route."""
    dialect: Dialect = scope[_KEY]
    return dialect


def note(scope: Scope, error: CorralError) -> None:
    """Has the line that the log gets for this request say why it failed."""
    scope[_NOTE] = str(error)


def note_of(scope: Scope) -> str:
    """What was noted for the request's line; empty when it went well."""
    return str(scope.get(_NOTE, ""))
