"""Our chunks, vectors and progress as Ollama's lines of JSON. Names, order and absence of fields are the contract.

Source: spec api §1, §7, §8, §10.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from corral.golang import gojson, timestamps
from corral.golang.text import as_float32, shortest_float32
from corral.messages import AnswerProgress, Chunk, Metrics, Progress, TokenLogprob, ToolCall
from corral.server.ollama.wire import WireFunction, WireToolCall


class WireLogprob(Struct, omit_defaults=True):
    token: str | UnsetType
    logprob: float | UnsetType
    bytes: Sequence[int] = ()
    top_logprobs: "Sequence[WireLogprob]" = ()


class WireDebugInfo(Struct, omit_defaults=True):
    rendered_template: str | UnsetType = UNSET
    image_count: int = 0


class WireAnswerProgress(Struct, omit_defaults=True):
    """What happens before an answer begins: bytes of the model, or tokens of the prompt. An addition of Corral's."""

    stage: Literal["queued", "preparing", "loading", "reading"] | UnsetType
    completed: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    cached: int | UnsetType = UNSET
    ahead: int | UnsetType = UNSET


class WireGenerateChunk(Struct, omit_defaults=True):
    model: str | UnsetType
    created_at: str | UnsetType
    response: str | UnsetType
    thinking: str = ""
    done: bool | UnsetType = UNSET
    done_reason: str = ""
    context: Sequence[int] = ()
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    tool_calls: Sequence[WireToolCall] = ()
    debug_info: WireDebugInfo | UnsetType = field(name="_debug_info", default=UNSET)
    logprobs: Sequence[WireLogprob] = ()
    progress: WireAnswerProgress | UnsetType = UNSET
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    truncated_tokens: int = 0
    unenforced: Sequence[str] = ()


class WireAnswer(Struct, omit_defaults=True):
    role: str | UnsetType
    content: str | UnsetType
    thinking: str = ""
    tool_calls: Sequence[WireToolCall] = ()


class WireChatChunk(Struct, omit_defaults=True):
    model: str | UnsetType
    created_at: str | UnsetType
    message: WireAnswer | UnsetType
    done: bool | UnsetType = UNSET
    done_reason: str = ""
    debug_info: WireDebugInfo | UnsetType = field(name="_debug_info", default=UNSET)
    logprobs: Sequence[WireLogprob] = ()
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    progress: WireAnswerProgress | UnsetType = UNSET
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    truncated_tokens: int = 0
    unenforced: Sequence[str] = ()


class WireEmbedding(Struct, omit_defaults=True):
    model: str | UnsetType
    embeddings: list[Any] | UnsetType
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class WireProgress(Struct, omit_defaults=True):
    status: str | UnsetType
    digest: str = ""
    total: int = 0
    completed: int = 0


_NO_METRICS = Metrics()


def _cost(chunk: Chunk) -> tuple[int, int, int, int, int, int]:
    """What an answer cost, as the lines of both routes have it: nothing before its end."""
    metrics = chunk.metrics or _NO_METRICS
    return (
        metrics.total_duration,
        metrics.load_duration,
        metrics.prompt_eval_count,
        metrics.prompt_eval_duration,
        metrics.eval_count,
        metrics.eval_duration,
    )


def generate_chunk(model: str, chunk: Chunk) -> WireGenerateChunk:
    return WireGenerateChunk(
        model,
        timestamps.now_utc(),
        chunk.content,
        chunk.thinking,
        bool(chunk.done_reason),
        chunk.done_reason,
        chunk.context or (),
        *_cost(chunk),
        tuple(_tool_call(call, with_id=False) for call in chunk.tool_calls),
        _debug_info(chunk),
        _logprobs(chunk.logprobs),
    )


def chat_chunk(model: str, chunk: Chunk) -> WireChatChunk:
    role = "assistant" if chunk.rendered is None else ""
    calls = tuple(_tool_call(call, with_id=True) for call in chunk.tool_calls)
    return WireChatChunk(
        model,
        timestamps.now_utc(),
        WireAnswer(role, chunk.content, chunk.thinking, calls),
        bool(chunk.done_reason),
        chunk.done_reason,
        _debug_info(chunk),
        _logprobs(chunk.logprobs),
        *_cost(chunk),
    )


Line = TypeVar("Line", WireGenerateChunk, WireChatChunk)


def with_progress(line: Line, chunk: Chunk) -> Line:
    """The line of a chunk in a stream that shows progress.

    What the first chunk says of the prompt and the schema stands in it, since the headers have been sent by then; how
    much of the prompt was cached, and what speculation gave, stands in the last.
    """
    if chunk.progress is not None:
        line.progress = _answer_progress(chunk.progress)
    if chunk.metrics is not None:
        line.cached_tokens = chunk.metrics.cached_tokens
        line.drafted_tokens = chunk.metrics.drafted_tokens
        line.accepted_tokens = chunk.metrics.accepted_tokens
    if not chunk.done_reason:
        line.truncated_tokens, line.unenforced = chunk.truncated_tokens, chunk.unenforced
    return line


class LineWriter:
    """Chunks as the lines of a stream, where `line` says what stands in that of a chunk.

    Most chunks hold a text and nothing else, and so their lines differ in the moment and the text: what stands around
    those is taken from one line that was made, and not made again for each token.
    """

    def __init__(self, line: Callable[[Chunk], WireGenerateChunk | WireChatChunk]) -> None:
        self._line = line
        sample = line(Chunk(_HOLE))
        sample.created_at = _HOLE
        before, between, self._behind = (gojson.encode(sample) + b"\n").split(gojson.encode(_HOLE))
        self._before, self._between = before + b'"', b'"' + between

    def __call__(self, chunk: Chunk) -> bytes:
        if chunk == Chunk(chunk.content):
            moment, text = timestamps.utc(time.time_ns()).encode(), gojson.encode(chunk.content)
            return b"".join((self._before, moment, self._between, text, self._behind))
        return gojson.encode(self._line(chunk)) + b"\n"


_HOLE = "\0"
"""A text that no other field of a line has: no model has such a name."""


def _answer_progress(progress: AnswerProgress) -> WireAnswerProgress:
    match progress.stage:
        case "queued":
            return WireAnswerProgress("queued", ahead=progress.ahead)
        case "preparing" | "loading":
            return WireAnswerProgress(progress.stage, progress.completed, progress.total)
        case "reading":
            return WireAnswerProgress("reading", progress.completed, progress.total, progress.cached)


def progress_line(progress: Progress) -> WireProgress:
    return WireProgress(progress.status, progress.digest, progress.total, progress.completed)


def _tool_call(call: ToolCall, *, with_id: bool) -> WireToolCall:
    return WireToolCall(call.id if with_id else "", WireFunction(call.index, call.name, call.arguments))


def _debug_info(chunk: Chunk) -> WireDebugInfo | UnsetType:
    return UNSET if chunk.rendered is None else WireDebugInfo(chunk.rendered.text, chunk.rendered.images)


def _logprobs(logprobs: Sequence[TokenLogprob]) -> tuple[WireLogprob, ...]:
    return tuple(WireLogprob(item.token, item.logprob, item.bytes, _logprobs(item.top)) for item in logprobs)


def float32_texts(vector: Sequence[float]) -> list[float]:
    """The numbers as the shortest decimals that are the same single-precision number (spec api §10.1)."""
    return [shortest_float32(value) for value in vector]


def widened(vector: Sequence[float]) -> list[float]:
    """Single-precision numbers as doubles of the same value, with all their decimals (spec api §10.2)."""
    return [as_float32(value) for value in vector]
