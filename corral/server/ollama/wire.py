"""Ollama's JSON: its requests turned into ours, our chunks into its lines.

Names, order and absence of fields are the contract. Source: spec api §1, §5, §7, §8, §10.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from corral.errors import BadRequest
from corral.golang import gojson, timestamps
from corral.golang.text import as_float32, quote, shortest_float32
from corral.messages import (
    AnswerProgress,
    ChatRequest,
    Chunk,
    DetokenizeRequest,
    EmbedRequest,
    GenerateRequest,
    Json,
    Message,
    Metrics,
    Progress,
    Think,
    TokenizeRequest,
    TokenLogprob,
    ToolCall,
)
from corral.server.http.files import read_media
from corral.server.http.keep_alive import read_keep_alive
from corral.server.http.tools import WireTool, read_tool_choice, tool


class WireFunction(Struct, omit_defaults=True):
    index: int | UnsetType = UNSET
    name: str = ""
    arguments: dict[str, Any] | UnsetType = UNSET


class WireToolCall(Struct, omit_defaults=True):
    id: str = ""
    function: WireFunction = field(default_factory=WireFunction)


class WireMessage(Struct):
    role: str = ""
    content: str | list[Any] = ""
    thinking: str = ""
    images: list[str] = []
    tool_calls: list[WireToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class WireGenerateRequest(Struct):
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] = []
    stream: bool = True
    raw: bool = False
    format: Any = None
    keep_alive: Any = None
    images: list[str] = []
    options: dict[str, Any] = {}
    think: Any = None
    truncate: bool = True
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    render_only: bool = field(name="_debug_render_only", default=False)
    progress: bool = False
    """Whether lines of a stream are to say what happens before the answer begins. An addition of Corral's."""


class WireChatRequest(Struct):
    model: str = ""
    messages: list[WireMessage] = []
    stream: bool = True
    format: Any = None
    keep_alive: Any = None
    tools: list[WireTool] = []
    tool_choice: Any = None
    options: dict[str, Any] = {}
    think: Any = None
    truncate: bool = True
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    render_only: bool = field(name="_debug_render_only", default=False)
    progress: bool = False
    """Whether lines of a stream are to say what happens before the answer begins. An addition of Corral's."""


class WireEmbedRequest(Struct):
    model: str = ""
    input: Any = None
    truncate: bool = True
    dimensions: int = 0
    keep_alive: Any = None
    options: dict[str, Any] = {}


class WireEmbeddingRequest(Struct):
    model: str = ""
    prompt: str = ""
    keep_alive: Any = None
    options: dict[str, Any] = {}


class WireTokenizeRequest(Struct):
    """`text` and `prompt` are other names for `content`, as other servers have them."""

    model: str = ""
    content: str = ""
    text: str = ""
    prompt: str = ""
    add_special: bool = False
    keep_alive: Any = None
    options: dict[str, Any] = {}


class WireMarkdownRequest(Struct):
    text: str = ""


class WireDetokenizeRequest(Struct):
    model: str = ""
    tokens: list[int] = []
    keep_alive: Any = None
    options: dict[str, Any] = {}


def generate_request(wire: WireGenerateRequest) -> GenerateRequest:
    """Our request; `BadRequest` for what the wire types cannot say: base64, think, keep_alive, top_logprobs."""
    keep_alive, think = read_keep_alive(wire.keep_alive), read_think(wire.think)
    media = read_media(wire.images)
    _check_top_logprobs(wire.top_logprobs)
    return GenerateRequest(
        model=wire.model,
        prompt=wire.prompt,
        suffix=wire.suffix,
        system=wire.system,
        template=wire.template,
        context=tuple(wire.context),
        raw=wire.raw,
        media=media,
        format=read_format(wire.format),
        options=wire.options,
        think=think,
        keep_alive=keep_alive,
        truncate=wire.truncate,
        shift=wire.shift,
        logprobs=wire.logprobs,
        top_logprobs=wire.top_logprobs,
        render_only=wire.render_only,
        progress=wire.progress and wire.stream,
    )


def chat_request(wire: WireChatRequest) -> ChatRequest:
    keep_alive, think = read_keep_alive(wire.keep_alive), read_think(wire.think)
    messages = tuple(message(item) for item in wire.messages)
    _check_top_logprobs(wire.top_logprobs)
    return ChatRequest(
        model=wire.model,
        messages=messages,
        tools=tuple(tool(item) for item in wire.tools),
        tool_choice=read_tool_choice(wire.tool_choice),
        format=read_format(wire.format),
        options=wire.options,
        think=think,
        keep_alive=keep_alive,
        truncate=wire.truncate,
        shift=wire.shift,
        logprobs=wire.logprobs,
        top_logprobs=wire.top_logprobs,
        render_only=wire.render_only,
        progress=wire.progress and wire.stream,
    )


def embed_request(wire: WireEmbedRequest, keep_alive: float | None) -> EmbedRequest:
    """The type of `input` is checked by the route, which has an order of checks to keep, and so is `keep_alive`."""
    inputs: tuple[str, ...] = ()
    match wire.input:
        case str():
            inputs = (wire.input,) if wire.input else ()
        case list():
            inputs = tuple(wire.input)
    return EmbedRequest(
        model=wire.model,
        inputs=inputs,
        truncate=wire.truncate,
        dimensions=wire.dimensions,
        options=wire.options,
        keep_alive=keep_alive,
    )


def tokenize_request(wire: WireTokenizeRequest) -> TokenizeRequest:
    return TokenizeRequest(
        model=wire.model,
        text=wire.content or wire.text or wire.prompt,
        add_special=wire.add_special,
        options=wire.options,
        keep_alive=read_keep_alive(wire.keep_alive),
    )


def detokenize_request(wire: WireDetokenizeRequest) -> DetokenizeRequest:
    return DetokenizeRequest(
        model=wire.model,
        tokens=tuple(wire.tokens),
        options=wire.options,
        keep_alive=read_keep_alive(wire.keep_alive),
    )


def input_is_text(value: Json) -> bool:
    """Whether `input` is null, a string, or a list of strings."""
    return (
        value is None or isinstance(value, str) or (isinstance(value, list) and all(isinstance(x, str) for x in value))
    )


def message(wire: WireMessage) -> Message:
    """`BadRequest` for pictures that are no base64, and for content that is neither a text nor a list of texts."""
    calls = tuple(
        ToolCall(call.function.name, call.function.arguments or {}, position, call.id)
        for position, call in enumerate(wire.tool_calls)
    )
    return Message.of(
        wire.role.lower(),
        wire.content if isinstance(wire.content, str) else "".join(map(_text_of_part, wire.content)),
        media=read_media(wire.images),
        thinking=wire.thinking,
        tool_calls=calls,
        tool_name=wire.tool_name,
        tool_call_id=wire.tool_call_id,
    )


def _text_of_part(part: Json) -> str:
    """The text of a part as OpenAI's clients write it, or of one that is a text itself. An addition of ours."""
    match part:
        case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return text
        case _:
            raise BadRequest(
                "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"
            )


_LEVELS: dict[str, Literal["low", "medium", "high", "max"]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
}


def read_think(value: Json) -> Think:
    match value:
        case None | bool():
            return value
        case str() if value in _LEVELS:
            return _LEVELS[value]
        case str():
            raise BadRequest(
                f'invalid think value: {quote(value)} (must be "high", "medium", "low", "max", true, or false)'
            )
        case _:
            raise BadRequest('think must be a boolean or string ("high", "medium", "low", "max", true, or false)')


def read_format(value: Json) -> Json:
    """`""` means none, as null does; whether the rest is a format is for the prompt's maker to say."""
    return None if value == "" else value


def _check_top_logprobs(count: int) -> None:
    if not 0 <= count <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")


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


def generate_chunk(model: str, chunk: Chunk) -> WireGenerateChunk:
    metrics = chunk.metrics or _NO_METRICS
    return WireGenerateChunk(
        model,
        timestamps.now_utc(),
        chunk.content,
        chunk.thinking,
        bool(chunk.done_reason),
        chunk.done_reason,
        chunk.context or (),
        metrics.total_duration,
        metrics.load_duration,
        metrics.prompt_eval_count,
        metrics.prompt_eval_duration,
        metrics.eval_count,
        metrics.eval_duration,
        tuple(tool_call(call, with_id=False) for call in chunk.tool_calls),
        _debug_info(chunk),
        _logprobs(chunk.logprobs),
    )


def chat_chunk(model: str, chunk: Chunk) -> WireChatChunk:
    metrics = chunk.metrics or _NO_METRICS
    role = "assistant" if chunk.rendered is None else ""
    calls = tuple(tool_call(call, with_id=True) for call in chunk.tool_calls)
    return WireChatChunk(
        model,
        timestamps.now_utc(),
        WireAnswer(role, chunk.content, chunk.thinking, calls),
        bool(chunk.done_reason),
        chunk.done_reason,
        _debug_info(chunk),
        _logprobs(chunk.logprobs),
        metrics.total_duration,
        metrics.load_duration,
        metrics.prompt_eval_count,
        metrics.prompt_eval_duration,
        metrics.eval_count,
        metrics.eval_duration,
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


def tool_call(call: ToolCall, *, with_id: bool) -> WireToolCall:
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
