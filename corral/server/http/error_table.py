"""The form of a dialect's table of errors: from a kind to its status and sentence.

A kind without a row of its own is written as the nearest kind above it that has one; without a sentence in the table it
says what the error itself says.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from corral import errors
from corral.errors import CorralError


class Row(NamedTuple):
    """How a kind of error is written. None: as the kind above it."""

    status: int | Callable[[Any], int] | None = None
    sentence: Callable[[Any], str] | None = None


Table: TypeAlias = Mapping[type[CorralError], Row]


STATUSES: Table = {
    CorralError: Row(500),
    errors.BadRequest: Row(400),
    errors.BodyTooLarge: Row(413),
    errors.BodyTooSlow: Row(408),
    errors.KeyRequired: Row(401),
    errors.Forbidden: Row(403),
    errors.NotFound: Row(404),
    errors.NotPublished: Row(500),
    errors.Busy: Row(503),
    errors.LimitReached: Row(429),
    errors.EngineError: Row(lambda error: error.code or 500),
    errors.RequestLoop: Row(508),
}
"""The statuses that all dialects share, without sentences of their own."""


def status_of(table: Table, error: CorralError) -> int:
    """The HTTP status; the table has a row for `CorralError`."""
    status = next(row.status for row in _rows(table, error) if row.status is not None)
    return status if isinstance(status, int) else status(error)


ENGINE_STATUSES = (400, 404, 500, 501, 502, 503)
"""The statuses that llama-server gives its errors, which are passed on, and those of errors of other servers."""


def statuses_of(table: Table) -> tuple[int, ...]:
    """Every status that errors get by a table."""
    fixed = {row.status for row in table.values() if isinstance(row.status, int)}
    return tuple(sorted(fixed.union(ENGINE_STATUSES)))


def sentence_of(table: Table, error: CorralError) -> str:
    """What the person reads."""
    sentence = next((row.sentence for row in _rows(table, error) if row.sentence is not None), str)
    return sentence(error)


def may_pass(error: CorralError) -> bool:
    """Whether the same request, sent a second time, may be answered."""
    passing = errors.Busy | errors.EngineDied | errors.OutOfMemory | errors.Unreachable | errors.UpstreamError
    return isinstance(error, passing)


def error_headers(status: int, error: CorralError) -> dict[str, str]:
    """The headers of an error that tell clients to wait, or to send a key; empty for others."""
    if isinstance(error, errors.LimitReached):
        return {"retry-after": str(error.wait)}
    if isinstance(error, errors.KeyRequired):
        return {"www-authenticate": 'Bearer realm="corral"'}
    return {"retry-after": "1"} if status == 503 else {}


def retry_headers(status: int, error: CorralError) -> dict[str, str]:
    """The same, and `x-should-retry`, which keeps the vendors' clients from repeating what will fail again."""
    return {"x-should-retry": "true" if may_pass(error) else "false", **error_headers(status, error)}


def _rows(table: Table, error: CorralError) -> Iterator[Row]:
    """The rows of an error's kind and of the kinds above it, nearest first."""
    return (table[kind] for kind in type(error).__mro__ if kind in table)
