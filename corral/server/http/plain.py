"""How routes that belong to no API of others write their errors: as a line of plain text."""

from starlette.responses import Response

from corral.errors import CorralError
from corral.server.http.dialect import Dialect


def _answer(error: CorralError) -> Response:
    return Response(f"{error}\n", 500, {"content-type": "text/plain; charset=utf-8"})


def _line(error: CorralError) -> bytes:
    return f"# {error}\n".encode()


PLAIN = Dialect(_answer, _line, statuses=(403, 500))
