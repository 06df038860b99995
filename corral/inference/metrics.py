"""What a request took: when it came on, how many tokens, what was left out; told to its client, the metrics, the log.

Part of the meeting point: knows neither model nor engine.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from corral.engine.base import Finish
from corral.messages import Chunk, Metrics
from corral.telemetry import Series

log = logging.getLogger(__name__)


class Clock:
    """When a request arrived, got its runner, was let in, and saw its first token; nanoseconds, 0 for not yet."""

    def __init__(self) -> None:
        self._arrived = time.monotonic_ns()
        self._loaded = 0
        self._admitted = 0
        self._first = 0

    def got_runner(self) -> None:
        self._loaded = time.monotonic_ns()

    def let_in(self) -> None:
        self._admitted = time.monotonic_ns()

    def saw_token(self) -> bool:
        """Notes the first token; true when this was it."""
        if self._first:
            return False
        self._first = time.monotonic_ns()
        return True

    @property
    def load_duration(self) -> int:
        return max(1, self._loaded - self._arrived)

    @property
    def queue_seconds(self) -> float:
        return max(0, self._admitted - self._arrived) / 1e9

    @property
    def first_token_seconds(self) -> float:
        return max(0, self._first - self._arrived) / 1e9

    def since_arrival(self) -> int:
        return time.monotonic_ns() - self._arrived


class Account:
    """Of one request. `label` is the model's name for people."""

    def __init__(self, clock: Clock, series: Series, label: str) -> None:
        self._clock = clock
        self._series = series
        self._label = label
        self.dropped = 0
        """Tokens of the prompt that were left out, as far as is known."""
        self.unenforced: tuple[str, ...] = ()
        """Parts of the format that the answer is not held to."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """As long as the request is let in."""
        self._clock.let_in()
        with self._series.serving(self._label, self._clock.queue_seconds):
            yield

    def told(self, chunk: Chunk) -> Chunk:
        """The chunk as it goes out; the first one says what was left out of the prompt."""
        if not self._clock.saw_token():
            return chunk
        self._series.first_token.labels(self._label).observe(self._clock.first_token_seconds)
        if not (self.dropped or self.unenforced):
            return chunk
        return msgspec.structs.replace(chunk, truncated_tokens=self.dropped, unenforced=self.unenforced)

    def last(self, finish: Finish, warnings: Sequence[str], context: tuple[int, ...] | None) -> Chunk:
        """The last chunk, with all that is known by then; `warnings` are kinds of trouble in reading the answer."""
        metrics = Metrics(
            total_duration=self._clock.since_arrival(),
            load_duration=self._clock.load_duration,
            prompt_eval_count=finish.prompt_tokens,
            prompt_eval_duration=finish.prompt_duration,
            eval_count=finish.generated_tokens,
            eval_duration=finish.generation_duration,
            cached_tokens=finish.cached_tokens,
            truncated_tokens=self.dropped,
        )
        self._record(metrics, finish.reason)
        for warning in warnings:
            log.warning("model %s: %s", self._label, warning.replace("_", " "))
            self._series.parsing.labels(self._label, warning).inc()
        return Chunk(done_reason=finish.reason, metrics=metrics, context=context, truncated_tokens=self.dropped)

    def _record(self, metrics: Metrics, reason: Literal["stop", "length"]) -> None:
        label, series = self._label, self._series
        read, cached, wrote = metrics.prompt_eval_count, metrics.cached_tokens, metrics.eval_count
        told = "model %s: %d tokens read, %d of them from the cache, %d written, %s"
        log.debug(told, label, read, cached, wrote, reason)
        series.prompt_tokens.labels(label).inc(metrics.prompt_eval_count)
        series.generation_tokens.labels(label).inc(metrics.eval_count)
        series.cache_queries.labels(label).inc(metrics.prompt_eval_count)
        series.cache_hits.labels(label).inc(metrics.cached_tokens)
        series.duration.labels(label).observe(metrics.total_duration / 1e9)
        series.finished.labels(label, reason).inc()
        if metrics.truncated_tokens:
            series.truncated(label, metrics.truncated_tokens)
            log.warning("model %s: prompt cut by %d tokens to fit the context", label, metrics.truncated_tokens)
