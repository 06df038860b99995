"""`/metrics`: the counted series, and what the scheduler holds at the moment of asking. Prometheus text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from corral.errors import Forbidden
from corral.inference.elsewhere import Elsewhere
from corral.inference.runners import Runners
from corral.server.http.needs import MANAGE
from corral.server.http.operation import Operation
from corral.server.http.plain import PLAIN
from corral.server.http.requests import runtime_of
from corral.server.http.routing import route
from corral.serving.runner import Runner


async def metrics(request: Request) -> Response:
    """What the server has counted, in Prometheus' text format."""
    runtime = runtime_of(request)
    if runtime.caller.is_limited:
        raise Forbidden("your key is for some models only, and the metrics show all of them")
    now = CollectorRegistry()
    now.register(Gauges(runtime.runners, runtime.elsewhere))
    body = generate_latest(runtime.series.registry) + generate_latest(now)
    return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})


class Gauges:
    """Gauges read off the scheduler: loaded models, their memory and room, and who waits; and which servers work that
    answer for models.

    Two runners may go by one name (a model that also embeds, or was made anew while its old self was loaded). They are
    shown together, since Prometheus refuses a series that appears twice.
    """

    def __init__(self, runners: Runners, elsewhere: Elsewhere | None = None) -> None:
        self._runners = runners
        self._elsewhere = elsewhere

    def collect(self) -> Iterator[Metric]:
        waiting = _gauge("num_requests_waiting", "Requests that wait for a model or for room in one")
        waiting.add_metric([], self._runners.queued)
        memory = _gauge("model_memory_bytes", "Main memory a loaded model's workers hold", "model_name")
        context = _gauge("model_context_tokens", "Tokens one request may hold", "model_name")
        used = _gauge("kv_cache_usage_perc", "Part of the KV pool that is reserved, 1 is all of it", "model_name")
        for label, runners in self._loaded().items():
            pools = [runner.pool for runner in runners]
            memory.add_metric([label], sum(runner.engine.memory() for runner in runners))
            context.add_metric([label], max(runner.spec.num_ctx for runner in runners))
            used.add_metric([label], sum(p.reserved for p in pools) / max(1, sum(p.tokens for p in pools)))
        up = _gauge(
            "replica_up", "Whether another server that answers for a model works, 1 or 0", "model_name", "replica"
        )
        for served in () if self._elsewhere is None else self._elsewhere.all():
            for state in served.state().upstreams:
                up.add_metric([served.label, state.name], 0 if state.error else 1)
        yield from (waiting, memory, context, used, up)

    def _loaded(self) -> dict[str, list[Runner]]:
        found: dict[str, list[Runner]] = {}
        for runner in self._runners.runners:
            if runner.loading is None:
                found.setdefault(runner.label, []).append(runner)
        return found


def _gauge(name: str, sentence: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"corral_{name}", sentence, labels=labels)


ROUTES = (route("/metrics", metrics, "GET", dialect=PLAIN, operation=Operation(text="text/plain"), needs=MANAGE),)
