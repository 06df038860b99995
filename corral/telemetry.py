"""Logging and Prometheus metrics: log lines, one line a request, series. Knows no route and no engine.

The series are named after vLLM's, so that dashboards made for it need only another prefix.
"""

import contextlib
import json
import logging
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640)

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The HTTP request that is being answered; empty outside of one."""


def new_request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


class Series:
    """The server's Prometheus series, in a registry of their own; each is labelled with the model's name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = self._gauge("num_requests_running", "Requests a model is answering")
        self.queue_time = self._histogram("request_queue_time_seconds", "Time from arrival until a model took it on")
        self.first_token = self._histogram("time_to_first_token_seconds", "Time from arrival to the first token")
        self.duration = self._histogram("e2e_request_latency_seconds", "Time from arrival to the end of the answer")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens, read or found in the cache")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated")
        self.cache_queries = self._counter("prefix_cache_queries", "Prompt tokens looked for in the prompt cache")
        self.cache_hits = self._counter("prefix_cache_hits", "Prompt tokens found in the prompt cache")
        self.drafted_tokens = self._counter("drafted_tokens", "Tokens that speculation proposed to the model")
        self.accepted_tokens = self._counter("accepted_tokens", "Tokens proposed by speculation that the model took")
        self.truncations = self._counter("prompt_truncations", "Prompts that were cut to fit the context")
        self.truncated_tokens = self._counter("prompt_truncated_tokens", "Prompt tokens left out to fit the context")
        self.parsing = self._counter(
            "answer_warnings", "Answers that broke the model's format or repeated themselves", "warning"
        )
        self.loosened_tools = self._counter(
            "requests_with_loosened_tools", "Requests with tools whose arguments were checked in part only"
        )
        self.finished = self._counter("request_success", "Requests answered to the end", "finished_reason")
        self.failed = self._counter("request_failures", "Requests that failed, or whose client left", "reason")
        self.replica_requests = self._counter(
            "replica_requests", "Requests by the replica that they were sent to", "replica"
        )
        self.replica_failures = self._counter(
            "replica_failures", "Requests that a replica failed before its answer began or amid it", "replica"
        )
        self.loads = self._counter("model_loads", "Models loaded")
        self.load_time = self._histogram("model_load_time_seconds", "Time to load a model")
        self.evictions = self._counter("model_evictions", "Models unloaded to make room or to change their options")

    def embedded(self, model_name: str, tokens: int, seconds: float) -> None:
        """Texts of so many tokens were turned into vectors."""
        self.prompt_tokens.labels(model_name).inc(tokens)
        self.finished.labels(model_name, "stop").inc()
        self.duration.labels(model_name).observe(seconds)

    @contextlib.contextmanager
    def serving(self, model_name: str, waited: float) -> Iterator[None]:
        """A model works on a request in this block, which waited so many seconds for it."""
        self.queue_time.labels(model_name).observe(waited)
        with self.running.labels(model_name).track_inprogress():
            yield

    def truncated(self, model_name: str, tokens: int) -> None:
        """A request was cut by so many tokens to fit the context."""
        self.truncations.labels(model_name).inc()
        self.truncated_tokens.labels(model_name).inc(tokens)

    def forget(self, model_name: str) -> None:
        """Drops the series of a model, which was deleted; they begin anew with a model of the same name."""
        for metric in vars(self).values():
            if isinstance(metric, Gauge | Counter | Histogram):
                metric.remove_by_labels({"model_name": model_name})

    def _gauge(self, name: str, sentence: str) -> Gauge:
        return Gauge(f"corral_{name}", sentence, ["model_name"], registry=self.registry)

    def _counter(self, name: str, sentence: str, *labels: str) -> Counter:
        return Counter(f"corral_{name}", sentence, ["model_name", *labels], registry=self.registry)

    def _histogram(self, name: str, sentence: str) -> Histogram:
        return Histogram(f"corral_{name}", sentence, ["model_name"], buckets=_SECONDS, registry=self.registry)


LINES_KEPT, LINE_KEPT = 300, 2000
"""Lines of the log that are kept in memory, and characters of each."""


def set_up_logging(*, debug: int = 0, form: str = "text", stream: TextIO = sys.stderr) -> None:
    """Sends all log lines to `stream`: `key=value` text, or a JSON object a line."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonLines() if form == "json" else _KeyValues())
    root = logging.getLogger()
    root.handlers[:] = [handler, _Last()]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for chatty in ("asyncio", "aiohttp.access", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _Last(logging.Handler):
    """Keeps the last lines of the log, for those who look at the server from elsewhere than its terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_KeyValues())
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record)[:LINE_KEPT])


def last_lines() -> list[str]:
    """The last lines of the log, the newest at the end; none before `set_up_logging`."""
    return [line for handler in logging.getLogger().handlers if isinstance(handler, _Last) for line in handler.lines]


class _KeyValues(logging.Formatter):
    """`time=… level=INFO source=scheduler.py:12 msg="…"`, which tools that read Ollama's log know."""

    def format(self, record: logging.LogRecord) -> str:
        line = getattr(record, _LINE, "")
        if not line:
            level = "WARN" if record.levelno == logging.WARNING else record.levelname
            message = json.dumps(record.getMessage(), ensure_ascii=False)
            line = f"time={_moment(record)} level={level} source={record.filename}:{record.lineno} msg={message}"
            setattr(record, _LINE, line)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


_LINE = "corral_line"
"""Attribute of a record: its line, for handlers that write the same."""


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": _moment(record),
            "level": record.levelname,
            "source": f"{record.filename}:{record.lineno}",
            "msg": record.getMessage(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps({**row, **getattr(record, "fields", {})}, ensure_ascii=False)


def _moment(record: logging.LogRecord) -> str:
    second, offset = _second(int(record.created))
    return f"{second}.{int(record.msecs):03d}{offset}"


@lru_cache(4)
def _second(seconds: int) -> tuple[str, str]:
    """A second's local time, and how far that is from UTC."""
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    offset = "Z" if zone in ("+0000", "") else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), offset


_requests = logging.getLogger("corral.requests")


def log_request(
    status: int,
    seconds: float,
    client: str,
    method: str,
    path: str,
    *,
    note: str = "",
    failed: bool = False,
    routine: bool = False,
) -> None:
    """Writes the line of one request: what was asked, by which client, how it ended and how long it took in seconds.

    `note` says more of the end. `failed` may be true for a good status: a stream can fail after it has begun.
    Of what is `routine` only a failure is of interest.
    """
    text = f"{status} | {_duration(seconds)} | {client} | {method} {path}" + (f" | {note}" if note else "")
    fields = {
        "status": status,
        "seconds": round(seconds, 6),
        "client": client,
        "method": method,
        "path": path,
        **({"note": note} if note else {}),
    }
    usual = logging.DEBUG if routine and status < 400 else logging.INFO
    level = logging.ERROR if status >= 500 else logging.WARNING if failed and status < 400 else usual
    _requests.log(level, "%s", text, extra={"fields": fields})


def _duration(seconds: float) -> str:
    return f"{seconds:.3f}s" if seconds >= 1 else f"{seconds * 1000:.3f}ms"
