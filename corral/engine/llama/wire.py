"""llama-server's JSON: our requests as its bodies, its events as pieces. Knows no connection and no process."""

import asyncio
import base64
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from corral.engine.base import EngineChat, Finish, Piece, Sampling
from corral.engine.llama import allowed
from corral.engine.llama.prefill import PrefillStats
from corral.errors import EngineError, EngineRefused
from corral.media_kinds import kind_of
from corral.messages import AnswerProgress, Message, Part, Picture, Sound, Text, TokenLogprob, Tool, ToolCall

T = TypeVar("T")

LARGE = 1 << 18
"""Bytes of JSON that are encoded and decoded in a thread."""


class Error(Struct, frozen=True):
    message: str = "the engine refused the request"
    code: int = 500
    type: str = ""


class Failed(Struct, frozen=True):
    error: Error = Error()


class Timings(Struct, frozen=True):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    draft_n: int = 0
    draft_n_accepted: int = 0


class PromptProgress(Struct, frozen=True):
    """How far a prompt has been read, in tokens; `processed` counts those of `cache` too."""

    total: int = 0
    cache: int = 0
    processed: int = 0


class Probability(Struct, frozen=True):
    id: int = -1
    token: str = ""
    bytes: tuple[int, ...] | None = None
    logprob: float | None = 0.0
    top_logprobs: list["Probability"] = []


class Completion(Struct, frozen=True):
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    stopping_word: str = ""
    tokens_predicted: int = 0
    completion_probabilities: list[Probability] = []
    timings: Timings = Timings()
    id_slot: int = -1
    prompt_progress: PromptProgress | None = None
    error: Error | None = None


class TokenPiece(Struct, frozen=True):
    id: int
    piece: str | list[int]


class Slot(Struct, frozen=True):
    id: int = -1
    is_processing: bool = False
    n_prompt_tokens: int = 0


class SavedSlot(Struct, frozen=True):
    n_written: int = 0
    """Bytes."""


class FunctionDelta(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class CallDelta(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: FunctionDelta = FunctionDelta()


class Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] = []


class ChoiceLogprobs(Struct, frozen=True):
    content: list[Probability] = []


class Choice(Struct, frozen=True):
    delta: Delta = Delta()
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class Usage(Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatEvent(Struct, frozen=True):
    choices: list[Choice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    prompt_progress: PromptProgress | None = None
    error: Error | None = None


class CallParts(Struct):
    name: str = ""
    id: str = ""
    arguments: str = ""


decode_completion = msgspec.json.Decoder(Completion).decode
decode_chat = msgspec.json.Decoder(ChatEvent).decode
decode_failed = msgspec.json.Decoder(Failed).decode


async def encoded(path: str, body: dict[str, Any]) -> bytes:
    """The JSON of a body that may be sent to this path; that of a large one is made in a thread, so that it does not
    hold up the event loop. `EngineRefused` as `allowed.check` raises it."""
    if _size(body) > LARGE:
        return await asyncio.to_thread(_encoded, path, body)
    return _encoded(path, body)


def _encoded(path: str, body: dict[str, Any]) -> bytes:
    allowed.check(path, body)
    return msgspec.json.encode(body)


def _size(value: Any) -> int:
    """About how many bytes of JSON a value has: of a list of numbers, by its length."""
    match value:
        case str():
            return len(value)
        case list() if value and isinstance(value[0], int):
            return 4 * len(value)
        case list():
            return sum(map(_size, value))
        case dict():
            return sum(map(_size, value.values()))
        case _:
            return 4


def decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"the engine's answer cannot be read: {error}") from error


def numbers(row: list[float | None]) -> list[float]:
    """JSON has no NaN, so it comes as null."""
    return [math.nan if number is None else number for number in row]


_TOO_LARGE = "is too large to process"
"""What llama-server says of a text to embed that does not fit into a batch, with the code 500 of its own failures."""


def refusal(error: Error) -> EngineError:
    if 400 <= error.code < 500:
        return EngineRefused(error.message, code=error.code)
    if _TOO_LARGE in error.message:
        return EngineRefused(error.message, code=400)
    return EngineError(error.message, code=error.code if 500 <= error.code < 600 else 500)


def sampling_body(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_last_n": sampling.repeat_last_n,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        **({} if sampling.seed is None else {"seed": sampling.seed}),
        **({"logit_bias": sampling.logit_bias} if sampling.logit_bias else {}),
        # A prompt found in the cache gives logits that differ in the last digits from those of a prompt that is read,
        # enough to draw another token; a request with a seed is to give the same text again.
        "cache_prompt": sampling.seed is None or sampling.temperature == 0,
    }


def completion_piece(event: Completion, top: int) -> Piece:
    """The piece of an event that reports one token with its text, and so many alternatives to it."""
    logprobs = tuple(token_logprob(item, top) for item in event.completion_probabilities)
    return Piece(event.content, event.tokens, logprobs)


def completion_finish(event: Completion, prefill: PrefillStats) -> Finish:
    reason = "length" if event.stop_type == "limit" else "stop"
    stop_text = event.stopping_word if event.stop_type == "word" else ""
    return finish_of(reason, event.timings, prefill, generated=event.tokens_predicted, stop_text=stop_text)


def progress_piece(progress: PromptProgress, prefill: PrefillStats) -> Piece:
    """How far the prompt has been read; what the prefill before it has read was not found in the cache."""
    cached = max(0, progress.cache - prefill.tokens)
    completed = max(0, min(progress.processed, progress.total))
    return Piece(progress=AnswerProgress("reading", completed, progress.total, min(cached, completed)))


def token_logprob(item: Probability, top: int, own: bytes | None = None) -> TokenLogprob:
    """`own`: the token's bytes, where the item has those of more tokens, or none."""
    alternatives = tuple(token_logprob(other, 0) for other in item.top_logprobs[:top])
    if own is not None:
        return TokenLogprob(own.decode("utf-8", "replace"), bounded(item.logprob), tuple(own), alternatives)
    raw = item.bytes if item.bytes is not None else tuple(item.token.encode())
    return TokenLogprob(item.token, bounded(item.logprob), raw, alternatives)


def unmeasured(own: bytes) -> TokenLogprob:
    """A token within a character, whose probability the engine does not say: as if it were certain, no alternatives."""
    return TokenLogprob(own.decode("utf-8", "replace"), 0.0, tuple(own), ())


def bounded(logprob: float | None) -> float:
    return min(0.0, logprob or 0.0)


def piece_bytes(piece: str | list[int]) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def chat_body(request: EngineChat) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_format": "deepseek",
        **sampling_body(request.sampling),
        "max_tokens": request.max_tokens,
        "n_keep": request.num_keep,
    }
    if request.progress:
        body["return_progress"] = True
    if request.sampling.stop:
        body["timings_per_token"] = True  # the client ends the answer at a stop word, before timings would come
    if request.messages and request.messages[-1].role == "assistant" and not request.messages[-1].tool_calls:
        # The model goes on with this answer. One with calls is complete, and another answer follows it.
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    template_values: dict[str, Any] = {}
    if request.tools:
        body["tools"] = _tools(request.tools, request.call_schemas)
        body["parallel_tool_calls"] = request.parallel_calls
    if request.call_schemas or request.shown_schemas:
        # The engine makes its grammar from the tools of the body, and renders the template with these instead.
        template_values["tools"] = _tools(request.tools, request.shown_schemas)
    if request.think is not None:
        template_values["enable_thinking"] = bool(request.think)
        if isinstance(request.think, str):
            body["reasoning_effort"] = request.think
    if template_values:
        body["chat_template_kwargs"] = template_values
    if request.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "schema", "schema": request.schema}}
    if request.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs)}
    return body


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.media:
        wire["content"] = [_part(part) for part in message.content if part != Text("")]
    if message.tool_calls:
        wire["tool_calls"] = [_call(call) for call in message.tool_calls]
    texts = {"reasoning_content": message.thinking, "name": message.tool_name, "tool_call_id": message.tool_call_id}
    return wire | {name: text for name, text in texts.items() if text}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Picture(file):
            url = f"data:image/{kind_of(file) or 'png'};base64,{base64.b64encode(file).decode()}"
            return {"type": "image_url", "image_url": {"url": url}}
        case Sound(file):
            audio = {"data": base64.b64encode(file).decode(), "format": kind_of(file) or "wav"}
            return {"type": "input_audio", "input_audio": audio}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()}
    return {"type": "function", "id": call.id, "function": function}


def _tools(tools: Sequence[Tool], schemas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tools with these schemas of their arguments, or with their own parameters where there are none."""
    parameters = schemas or [tool.parameters for tool in tools]
    return [_tool(*pair) for pair in zip(tools, parameters, strict=True)]


def _tool(tool: Tool, parameters: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def collect_calls(calls: dict[int, CallParts], deltas: Sequence[CallDelta]) -> None:
    for delta in deltas:
        parts = calls.setdefault(delta.index, CallParts())
        parts.id = delta.id or parts.id
        parts.name += delta.function.name or ""
        parts.arguments += delta.function.arguments or ""


def finished_calls(calls: dict[int, CallParts]) -> tuple[tuple[ToolCall, ...], str]:
    """The complete calls, and as text those whose arguments were cut off, which must not be made."""
    complete: list[ToolCall] = []
    unread = ""
    for _, parts in sorted(calls.items()):
        try:
            arguments = msgspec.json.decode(parts.arguments or "{}", type=dict[str, Any])
        except msgspec.MsgspecError:
            unread += f'{{"name": "{parts.name}", "arguments": {parts.arguments}'
        else:
            complete.append(ToolCall(parts.name, arguments, len(complete), parts.id))
    return tuple(complete), unread


def chat_piece(choice: Choice, logprobs: tuple[TokenLogprob, ...]) -> Piece:
    return Piece(choice.delta.content or "", logprobs=logprobs, thinking=choice.delta.reasoning_content or "")


def finish_of(
    reason: str, timings: Timings, prefill: PrefillStats, *, prompt: int = 0, generated: int = 0, stop_text: str = ""
) -> Finish:
    """How an answer ended, with the prefill before it; `prompt` and `generated` tokens where they are known."""
    return Finish(
        reason="length" if reason == "length" else "stop",
        stop_text=stop_text,
        prompt_tokens=prompt or timings.cache_n + timings.prompt_n,
        cached_tokens=max(0, timings.cache_n - prefill.tokens),
        prompt_duration=int((timings.prompt_ms + prefill.milliseconds) * 1e6),
        generated_tokens=generated or timings.predicted_n,
        drafted_tokens=timings.draft_n,
        accepted_tokens=timings.draft_n_accepted,
        generation_duration=int(timings.predicted_ms * 1e6),
    )
