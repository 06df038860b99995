"""`/api/requests` and `/api/log`: where the time of the last requests went, and the log. Additions of Corral's."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from corral import telemetry
from corral.golang import timestamps
from corral.inference.recent import Report
from corral.server.http.bodies import reply
from corral.server.http.dialect import set_routine
from corral.server.http.requests import require_local, runtime_of


async def requests(request: Request) -> Response:
    """What became of the last requests, the newest first; with `?id=`, of one. Times are in nanoseconds."""
    set_routine(request.scope)
    reports = runtime_of(request).recent.reports(request.query_params.get("id", ""))
    return reply({"requests": [_shown(report) for report in reports]})


async def log(request: Request) -> Response:
    """The last lines of the server's log, the newest at the end; to this machine, or for the key of an admin."""
    set_routine(request.scope)
    if runtime_of(request).caller.key is None:
        require_local(request, or_our_page=True)
    return reply({"lines": telemetry.last_lines()})


def _shown(report: Report) -> dict[str, Any]:
    fields = msgspec.to_builtins(report)
    return {"id": fields.pop("id"), "created_at": timestamps.local(int(fields.pop("arrived") * 1e9)), **fields}
