"""How routes that belong to no API of others write their errors: as a line of plain text."""

from starlette.responses import Response

from corral.errors import CorralError
from corral.server.http.dialect import Dialect
from corral.server.http.error_table import STATUSES, error_headers, status_of


def _answer(error: CorralError) -> Response:
    status = status_of(STATUSES, error)
    headers = {"content-type": "text/plain; charset=utf-8", **error_headers(status, error)}
    return Response(f"{error}\n", status, headers)


def _line(error: CorralError) -> bytes:
    return f"# {error}\n".encode()


PLAIN = Dialect(_answer, _line, statuses=(401, 403, 500))
