"""Timing and token counts of one request, as its client, the metrics and the log get them.

Knows neither model nor engine.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from corral import telemetry
from corral.engine.base import Finish, Piece
from corral.inference.recent import Kind, Report, State
from corral.messages import Chunk, Metrics
from corral.serving.runner import Runner
from corral.serving.traffic import Traffic
from corral.telemetry import Series

log = logging.getLogger(__name__)


class RequestMetrics:
    """One request from its arrival on. Moments are monotonic nanoseconds, 0 for not yet."""

    def __init__(self, series: Series, spend: Callable[[int], None] = lambda _: None) -> None:
        """`spend` gets the tokens that the request has taken, once it is over."""
        self.id = telemetry.request_id.get() or telemetry.new_request_id()
        self._series = series
        self._spend = spend
        self._kind: Kind = "generate"
        self._model = ""
        self._label = ""
        self._traffic = Traffic()
        self._read_tokens = 0
        """Tokens of the prompt that were read and counted."""
        self._truncated_tokens = 0
        self._unenforced: tuple[str, ...] = ()
        self.prompt_tokens = 0
        """Tokens of the prompt, for the first chunk; 0: not counted."""
        self._written_tokens = 0
        self._context_length = 0
        self._placement = ""
        self._is_tuned = False
        self._cost = Metrics()
        self._reason = ""
        self._warnings: tuple[str, ...] = ()
        self._error = ""
        self._is_stopped = False
        self._replica = self._replica_reason = ""
        self._moment = time.time()
        self._arrived = time.monotonic_ns()
        self._loaded = 0
        self._load = 0
        """Nanoseconds of its model's load that it has waited for."""
        self._planned = 0
        self._admitted = 0
        self.parked = 0.0
        """Seconds for which the answer waited for more room in the pool."""
        self._first_token = 0
        self.has_begun = False
        """Whether the first chunk has been annotated."""
        self._ended = 0

    def asked(self, kind: Kind, model: str) -> None:
        """What the request wants, of the model of that name; the runner may have been loaded under another one."""
        self._kind, self._model = kind, model

    def got_runner(self, runner: Runner) -> None:
        """The model is loaded."""
        self._label = runner.label
        self._traffic = runner.traffic
        self._context_length = runner.spec.num_ctx
        self._placement = "" if runner.spec.placement is None else runner.spec.placement.reason
        self._is_tuned = runner.spec.tuned is not None
        self._loaded = time.monotonic_ns()
        self._load = max(0, runner.load_ended - max(self._arrived, runner.load_began))

    def routed(self, replica: str, reason: str) -> None:
        """The replica that it goes to, and why."""
        self._replica, self._replica_reason = replica, reason
        self._series.replica_requests.labels(self._model, replica).inc()

    def got_upstream(self, label: str, traffic: Traffic) -> None:
        """It is sent to another server, which loads and plans by itself."""
        self._label, self._traffic = label, traffic
        self._loaded = self._planned = time.monotonic_ns()

    def planned(self, truncated_tokens: int, unenforced: tuple[str, ...], *, has_loosened_tools: bool) -> None:
        """Prompt tokens that are left out, and parts of the format's or the tools' schemas that need not be kept to."""
        self._planned = time.monotonic_ns()
        self._truncated_tokens = truncated_tokens
        self._unenforced = unenforced
        if has_loosened_tools:
            self._series.loosened_tools.labels(self._label).inc()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """The block in which the request has its room in the pool."""
        self._admitted = time.monotonic_ns()
        with self._series.serving(self._label, (self._admitted - self._arrived) / 1e9):
            yield

    def passed(self, piece: Piece) -> None:
        """Counts a piece of the answer. One without token ids has one token as a rule."""
        if piece.progress is not None:
            self._read(piece.progress.completed - piece.progress.cached)
        elif piece.finish is not None:
            self._read(piece.finish.prompt_tokens - piece.finish.cached_tokens)
        if piece.text or piece.thinking:
            tokens = len(piece.tokens) or 1
            self._written_tokens += tokens
            self._traffic.generated_tokens.add(tokens)

    def _read(self, tokens: int) -> None:
        if tokens > self._read_tokens:
            self._traffic.prompt_tokens.add(tokens - self._read_tokens)
            self._read_tokens = tokens

    def annotate_first(self, chunk: Chunk) -> Chunk:
        """The chunk as it is sent; the first one says what there is to say of the prompt and what is not enforced."""
        if self.has_begun:
            return chunk
        self.has_begun = True
        self._first_token = time.monotonic_ns()
        self._series.first_token.labels(self._label).observe((self._first_token - self._arrived) / 1e9)
        if not (self._truncated_tokens or self._unenforced or self.prompt_tokens):
            return chunk
        return msgspec.structs.replace(
            chunk,
            truncated_tokens=self._truncated_tokens,
            unenforced=self._unenforced,
            prompt_tokens=self.prompt_tokens,
        )

    def last(self, finish: Finish, warnings: Sequence[str], context: tuple[int, ...] | None) -> Chunk:
        """The last chunk; `warnings` are kinds of trouble with the answer (`parsers.Warning`, `repetition.WARNING`)."""
        metrics = Metrics(
            total_duration=self.total_duration,
            load_duration=self.load_duration,
            prompt_eval_count=finish.prompt_tokens,
            prompt_eval_duration=finish.prompt_duration,
            eval_count=finish.generated_tokens,
            eval_duration=finish.generation_duration,
            cached_tokens=finish.cached_tokens,
            drafted_tokens=finish.drafted_tokens,
            accepted_tokens=finish.accepted_tokens,
            truncated_tokens=self._truncated_tokens,
        )
        self._traffic.served += 1
        self._cost, self._reason, self._warnings = metrics, finish.reason, tuple(warnings)
        self._record(metrics, finish)
        for warning in warnings:
            log.warning("model %s: %s", self._label, warning.replace("_", " "))
            self._series.parsing.labels(self._label, warning).inc()
        return Chunk(
            done_reason=finish.reason,
            stop_text=finish.stop_text,
            metrics=metrics,
            context=context,
            truncated_tokens=self._truncated_tokens,
        )

    def embedded(self, tokens: int, truncated_tokens: int) -> None:
        """Texts of so many tokens were embedded or ranked, after so many were cut off."""
        self._traffic.prompt_tokens.add(tokens)
        self._traffic.served += 1
        self._truncated_tokens = truncated_tokens
        self._cost = Metrics(prompt_eval_count=tokens)
        self._series.embedded(self._label, tokens, self.total_duration / 1e9)
        if truncated_tokens:
            self._series.truncated(self._label, truncated_tokens)
            log.warning("model %s: texts cut by %d tokens", self._label, truncated_tokens)

    @property
    def load_duration(self) -> int:
        """Nanoseconds from arrival until the model was loaded."""
        return max(1, self._loaded - self._arrived)

    @property
    def total_duration(self) -> int:
        """Nanoseconds from arrival until now."""
        return time.monotonic_ns() - self._arrived

    def ended(self, error: str = "", *, is_stopped: bool = False) -> None:
        """The request is over; `error` says why, where it failed or `is_stopped` by its user."""
        self._ended = time.monotonic_ns()
        self._error = error
        self._is_stopped = is_stopped
        if tokens := self._prompt_tokens + self._generated_tokens:
            self._spend(tokens)

    @property
    def _prompt_tokens(self) -> int:
        """As the engine counted them at the end, or as many as were read until then."""
        return self._cost.prompt_eval_count or self._read_tokens

    @property
    def _generated_tokens(self) -> int:
        return self._cost.eval_count or self._written_tokens

    def report(self) -> Report:
        """Where the request's time has gone so far."""
        now = self._ended or time.monotonic_ns()
        loaded = self._loaded or now
        planned = self._planned or self._admitted or now
        is_embedding = self._kind in ("embed", "rerank")
        return Report(
            id=self.id,
            arrived=self._moment,
            kind=self._kind,
            model=self._model,
            state=self._state(),
            queue_duration=loaded - self._arrived - self._load,
            load_duration=self._load,
            plan_duration=max(0, planned - loaded) if self._loaded else 0,
            room_duration=max(0, (self._admitted or now) - planned) if self._planned else 0,
            parked_duration=int(self.parked * 1e9),
            first_token_duration=max(0, self._first_token - self._arrived),
            prompt_duration=now - self._admitted
            if is_embedding and self._admitted
            else self._cost.prompt_eval_duration,
            generation_duration=self._cost.eval_duration,
            total_duration=now - self._arrived,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cost.cached_tokens,
            truncated_tokens=self._truncated_tokens,
            generated_tokens=self._generated_tokens,
            drafted_tokens=self._cost.drafted_tokens,
            accepted_tokens=self._cost.accepted_tokens,
            tuned=self._is_tuned,
            context_length=self._context_length,
            placement=self._placement,
            replica=self._replica,
            replica_reason=self._replica_reason,
            reason=self._error or self._reason,
            warnings=self._warnings,
        )

    def _state(self) -> State:
        if self._ended:
            return "stopped" if self._is_stopped else "failed" if self._error else "done"
        if self._first_token:
            return "answering"
        return "reading" if self._admitted else "waiting"

    def _record(self, metrics: Metrics, finish: Finish) -> None:
        label, series = self._label, self._series
        log.debug(
            "model %s: %d tokens read, %d of them from the cache, %d written, %s",
            label,
            metrics.prompt_eval_count,
            metrics.cached_tokens,
            metrics.eval_count,
            finish.reason,
        )
        series.prompt_tokens.labels(label).inc(metrics.prompt_eval_count)
        series.generation_tokens.labels(label).inc(metrics.eval_count)
        series.cache_queries.labels(label).inc(metrics.prompt_eval_count)
        series.cache_hits.labels(label).inc(metrics.cached_tokens)
        series.drafted_tokens.labels(label).inc(metrics.drafted_tokens)
        series.accepted_tokens.labels(label).inc(metrics.accepted_tokens)
        series.duration.labels(label).observe(metrics.total_duration / 1e9)
        series.finished.labels(label, finish.reason).inc()
        if metrics.truncated_tokens:
            series.truncated(label, metrics.truncated_tokens)
            log.warning("model %s: prompt cut by %d tokens to fit the context", label, metrics.truncated_tokens)
