"""`/api/requests`: where the time of the last requests went. An addition of Corral's."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from corral.golang import timestamps
from corral.inference.recent import Report
from corral.server.http.bodies import reply
from corral.server.http.requests import runtime_of


async def requests(request: Request) -> Response:
    """What became of the last requests, the newest first; with `?id=`, of one. Times are in nanoseconds."""
    reports = runtime_of(request).recent.reports(request.query_params.get("id", ""))
    return reply({"requests": [_shown(report) for report in reports]})


def _shown(report: Report) -> dict[str, Any]:
    fields = msgspec.to_builtins(report)
    return {"id": fields.pop("id"), "created_at": timestamps.local(int(fields.pop("arrived") * 1e9)), **fields}
