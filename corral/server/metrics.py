"""`/metrics`: the counted series, and what the scheduler holds at the moment of asking. Prometheus text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from corral.scheduler import Scheduler
from corral.server.ollama_replies import runtime_of


async def metrics(request: Request) -> Response:
    runtime = runtime_of(request)
    now = CollectorRegistry()
    now.register(_Now(runtime.scheduler))
    body = generate_latest(runtime.series.registry) + generate_latest(now)
    return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})


class _Now:
    """Gauges read off the scheduler: loaded models, their memory and room, and who waits."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("corral_num_requests_waiting", "Requests that wait for a model or for room in one")
        waiting.add_metric([], self._scheduler.queued)
        yield waiting
        labels = ["model_name"]
        memory = GaugeMetricFamily(
            "corral_model_memory_bytes", "Main memory a loaded model's worker holds", labels=labels
        )
        context = GaugeMetricFamily("corral_model_context_tokens", "Tokens one request may hold", labels=labels)
        used = GaugeMetricFamily("corral_kv_cache_usage_perc", "Part of the KV pool that is reserved", labels=labels)
        for runner in self._scheduler.runners:
            if runner.loading is None:
                memory.add_metric([runner.label], runner.engine.memory())
                context.add_metric([runner.label], runner.spec.num_ctx)
                used.add_metric([runner.label], runner.pool.reserved / max(1, runner.pool.tokens))
        yield from (memory, context, used)
