"""`/api/nodes`: the machines that models run on, what is on them, and how one is drained. Additions of Corral's."""

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral.errors import BadRequest
from corral.server.http.bodies import body_as, reply
from corral.server.http.requests import runtime_of
from corral.serving.runner import Runner

if TYPE_CHECKING:
    from corral.cluster.fleets import Fleets, NodeReport


class WireNodeRequest(Struct):
    node: str = ""
    """Its address or its id."""


async def listed(request: Request) -> Response:
    """The nodes of the cluster and the models on each. Without a cluster a bad request."""
    return reply({"nodes": [_shown(report) for report in await _fleets(request).nodes()]})


async def drain(request: Request) -> Response:
    """Moves every model away from a node, which gets no new ones; answers when the last request there has ended.

    Where the only replica of a model has no other place it stays, and the node goes on: `drained` is false then.
    """
    fleets, node = _fleets(request), await _named(request)
    moved = await fleets.drain(node)
    return reply(
        {
            "drained": fleets.is_drained(node),
            "moved": [{"model": one.model, "to": one.to, "reason": one.reason} for one in moved],
        }
    )


async def resume(request: Request) -> Response:
    """Lets a node that was drained have models again."""
    node = await _named(request)
    await _fleets(request).resume(node)
    return reply({"node": node})


async def _named(request: Request) -> str:
    asked = await body_as(request, WireNodeRequest)
    if not asked.node:
        raise BadRequest("node is required: the address or the id of one")
    return asked.node


def _fleets(request: Request) -> "Fleets":
    fleets = runtime_of(request).runners.fleets
    if fleets is None:
        raise BadRequest("this server has no nodes: `corral serve --ray HOST:PORT` starts one that has")
    return fleets


def _shown(report: "NodeReport") -> dict[str, Any]:
    node = report.node
    return {
        "id": node.id,
        "address": node.address,
        "alive": node.is_alive,
        "drained": report.is_drained,
        "unfit": report.unfit,
        "cpus": node.total.cpus,
        "free_cpus": node.free.cpus,
        "memory": node.total.memory,
        "free_memory": node.free.memory,
        "gpus": node.total.gpus,
        "replicas": [_replica(runner) for runner in report.replicas],
    }


def _replica(runner: Runner) -> dict[str, Any]:
    is_loading = runner.loading is not None
    return {
        "model": runner.label,
        "state": "loading" if is_loading else "leaving" if runner.draining else "loaded",
        "users": runner.users,
        "memory": 0 if is_loading else runner.size,
        "prompt_tokens_per_second": round(runner.traffic.prompt_tokens.per_second(), 1),
        "generated_tokens_per_second": round(runner.traffic.generated_tokens.per_second(), 1),
    }
