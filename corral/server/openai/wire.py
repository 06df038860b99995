"""OpenAI's requests turned into ours. Source: spec api §17.2, §17.5, §17.6.

Read leniently, since many programs write them: null is as good as left out, and what is not known is ignored.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct, field

from corral.errors import BadRequest
from corral.golang import gojson
from corral.golang.text import quote
from corral.messages import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    Json,
    Media,
    Message,
    Part,
    Picture,
    Sound,
    Text,
    Think,
    ToolCall,
)
from corral.server.http.files import decode_base64
from corral.server.http.keep_alive import read_keep_alive
from corral.server.http.tools import WireTool, read_tool_choice, tool

MAX_CHOICES = 16
"""Answers that one request may ask for."""

MAX_BIASED = 1024
"""Tokens whose logits one request may change."""


TextOrTokens: TypeAlias = str | tuple[int, ...]


class WireStreamOptions(Struct):
    include_usage: bool = False


class WireFunctionCall(Struct):
    name: str = ""
    arguments: str | dict[str, Any] = ""


class WireToolCall(Struct):
    id: str = ""
    function: WireFunctionCall = field(default_factory=WireFunctionCall)


class WireMessage(Struct):
    role: str = ""
    content: Any = None
    name: str = ""
    reasoning: str = ""
    reasoning_content: str = ""
    tool_calls: list[WireToolCall] = []
    tool_call_id: str = ""


class WireJsonSchema(Struct):
    schema: Any = None


class WireResponseFormat(Struct):
    type: str = ""
    json_schema: WireJsonSchema = field(default_factory=WireJsonSchema)


class WireReasoning(Struct):
    effort: str = ""


class WireTemplateValues(Struct):
    enable_thinking: bool | None = None


class WireRequest(Struct, kw_only=True):
    """What the requests for an answer have in common. `options` and `keep_alive` are those of Ollama's API, and the
    numbers from `top_k` to `repeat_last_n` those of vLLM's and llama-server's."""

    model: str = ""
    stream: bool = False
    stream_options: WireStreamOptions = field(default_factory=WireStreamOptions)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: Any = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    logit_bias: dict[str, float] = {}
    n: int = 1
    options: dict[str, Any] = {}
    keep_alive: Any = None


class WireChatRequest(WireRequest, kw_only=True):
    messages: list[WireMessage] = []
    max_completion_tokens: int | None = None
    tools: list[WireTool] = []
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    response_format: WireResponseFormat = field(default_factory=WireResponseFormat)
    reasoning: WireReasoning = field(default_factory=WireReasoning)
    reasoning_effort: str = ""
    chat_template_kwargs: WireTemplateValues = field(default_factory=WireTemplateValues)
    """As clients of vLLM turn thinking on and off."""
    logprobs: bool = False
    top_logprobs: int = 0


class WireCompletionRequest(WireRequest, kw_only=True):
    prompt: Any = ""
    raw: bool = False
    """Whether the prompt is taken as it is, without the model's template: an addition of ours."""
    suffix: str = ""
    logprobs: int | None = None


class WireEmbedRequest(Struct):
    model: str = ""
    input: Any = None
    dimensions: int = 0
    encoding_format: str = "float"
    options: dict[str, Any] = {}
    keep_alive: Any = None


def chat_requests(wire: WireChatRequest) -> list[ChatRequest]:
    """Our requests, one for each of the `n` answers; `BadRequest` for what cannot be read."""
    if not wire.messages:
        raise BadRequest("[] is too short - 'messages'")
    if not 0 <= wire.top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    limit = wire.max_tokens if wire.max_completion_tokens is None else wire.max_completion_tokens
    request = ChatRequest(
        model=wire.model,
        messages=_messages(wire.messages),
        tools=tuple(tool(item) for item in wire.tools),
        tool_choice=read_tool_choice(wire.tool_choice),
        parallel_calls=wire.parallel_tool_calls,
        logit_bias=_logit_bias(wire.logit_bias),
        format=_format(wire.response_format),
        options=_options(wire, {"num_predict": limit, "temperature": 1.0, "top_p": 1.0}, _chat_stop(wire.stop)),
        think=_think(wire),
        keep_alive=read_keep_alive(wire.keep_alive),
        logprobs=wire.logprobs,
        top_logprobs=wire.top_logprobs,
        count_thinking=True,
    )
    return _numbered(request, wire)


def _think(wire: WireChatRequest) -> Think:
    effort = read_effort(wire.reasoning.effort or wire.reasoning_effort)
    return wire.chat_template_kwargs.enable_thinking if effort is None else effort


def completion_requests(wire: WireCompletionRequest) -> list[GenerateRequest]:
    """Our requests, for each prompt as many as `n` says; `BadRequest` for what cannot be read."""
    defaults = {"num_predict": wire.max_tokens, "temperature": 1.0, "top_p": wire.top_p or 1.0}
    defaults |= {"frequency_penalty": 0.0, "presence_penalty": 0.0}
    requests = [
        GenerateRequest(
            model=wire.model,
            prompt=prompt if isinstance(prompt, str) else "",
            prompt_tokens=() if isinstance(prompt, str) else prompt,
            suffix=wire.suffix,
            raw=wire.raw,
            logit_bias=_logit_bias(wire.logit_bias),
            options=_options(wire, defaults, _completion_stop(wire.stop)),
            keep_alive=read_keep_alive(wire.keep_alive),
            logprobs=bool(wire.logprobs),
            top_logprobs=min(wire.logprobs or 0, 20),
        )
        for prompt in _prompts(wire.prompt)
    ]
    numbered = [one for request in requests for one in _numbered(request, wire)]
    if len(numbered) > MAX_CHOICES:
        raise BadRequest(f"{len(numbered)} answers were asked for, more than {MAX_CHOICES}")
    return numbered


def embed_request(wire: WireEmbedRequest) -> EmbedRequest:
    """Our request; `BadRequest` for an `input` that is no text, no token ids and no list of these."""
    if wire.encoding_format.lower() not in ("float", "base64", ""):
        raise BadRequest(
            f"Invalid value for 'encoding_format' = {wire.encoding_format}. Supported values: ['float', 'base64']."
        )
    match wire.input:
        case None | []:
            raise BadRequest("invalid input")
        case str() | [int(), *_]:
            inputs = _texts(wire.input, "invalid input type")
        case list(given):
            inputs = tuple(text for one in given for text in _texts(one, "invalid input type"))
        case _:
            raise BadRequest("invalid input type")
    return EmbedRequest(
        model=wire.model,
        inputs=inputs,
        dimensions=wire.dimensions,
        options=wire.options,
        keep_alive=read_keep_alive(wire.keep_alive),
    )


_EFFORTS: dict[str, Think] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}


def read_effort(effort: str) -> Think:
    """How hard to think (spec api §17.2)."""
    if effort not in _EFFORTS:
        words = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise BadRequest(f"invalid reasoning value: {quote(effort)} (must be {words})")
    return _EFFORTS[effort]


def read_image_url(url: str) -> Picture:
    """A picture in a data URI; `BadRequest` for an address, and for what is none."""
    if url.startswith(("http://", "https://")):
        raise BadRequest("image URLs are not currently supported, please use base64 encoded data instead")
    head, comma, data = url.partition(",")
    if not comma or head not in _PICTURE_HEADS:
        raise BadRequest("invalid image input")
    try:
        return Picture(decode_base64(data))
    except BadRequest as error:
        raise BadRequest("invalid image input") from error


_PICTURE_HEADS = {f"data:{kind};base64" for kind in ("", "image/jpeg", "image/jpg", "image/png", "image/webp")}


def read_arguments(arguments: str | dict[str, Any]) -> dict[str, Any]:
    """A call's arguments, which stand in JSON as a text; some clients send the object itself."""
    if isinstance(arguments, dict):
        return arguments
    try:
        found = gojson.parse(arguments.encode()) if arguments.strip() else {}
    except BadRequest as error:
        raise BadRequest("invalid tool call arguments") from error
    if found is not None and not isinstance(found, dict):
        raise BadRequest("invalid tool call arguments")
    return found or {}


def _messages(messages: Iterable[WireMessage]) -> tuple[Message, ...]:
    """The conversation; a tool's result without a name gets that of the call it answers."""
    found = []
    names: dict[str, str] = {}
    for wire in messages:
        calls = tuple(
            ToolCall(call.function.name, read_arguments(call.function.arguments), position, call.id)
            for position, call in enumerate(wire.tool_calls)
        )
        names |= {call.id: call.name for call in calls}
        role = "system" if wire.role.lower() == "developer" else wire.role.lower()
        is_result = role == "tool"
        found.append(
            Message(
                role=role,
                content=_content(wire.content, may_be_null=bool(calls) or role in ("assistant", "tool")),
                thinking=wire.reasoning or wire.reasoning_content,
                tool_calls=calls,
                tool_name=(wire.name or names.get(wire.tool_call_id, "")) if is_result else "",
                tool_call_id=wire.tool_call_id,
            )
        )
    return tuple(found)


def _content(content: Json, *, may_be_null: bool) -> tuple[Part, ...]:
    match content:
        case str(text):
            return (Text(text),) if text else ()
        case list(parts):
            return tuple(_part(part) for part in parts)
        case None if may_be_null:
            return ()
        case None:
            raise BadRequest("invalid message content type: <nil>")
        case _:
            raise BadRequest(f"invalid message content type: {type(content).__name__}")


def _part(part: Json) -> Part:
    match part:
        case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "image_url", "image_url": str(url) | {"url": str(url)}}:
            return read_image_url(url)
        case {"type": "input_audio", "input_audio": sound}:
            return _sound(sound)
        case _:
            raise BadRequest("invalid message format")


def _sound(sound: Json) -> Media:
    match sound:
        case {"data": str(data)} if data:
            try:
                return Sound(decode_base64(data))
            except BadRequest as error:
                raise BadRequest(f"invalid input_audio base64 data: {error}") from error
        case dict():
            raise BadRequest("invalid input_audio format: missing data")
        case _:
            raise BadRequest("invalid input_audio format")


def _format(wire: WireResponseFormat) -> Json:
    match wire.type.strip().lower():
        case "json_object":
            return "json"
        case "json_schema":
            return wire.json_schema.schema
        case _:
            return None


def _options(wire: WireRequest, defaults: Mapping[str, Json], stop: list[str] | None) -> dict[str, Json]:
    """Ollama's options: what the API's own fields say goes before what `options` says, and this before `defaults`."""
    own = {
        "num_predict": defaults["num_predict"],
        "temperature": wire.temperature,
        "top_p": wire.top_p or None,
        "seed": wire.seed,
        "frequency_penalty": wire.frequency_penalty,
        "presence_penalty": wire.presence_penalty,
        "top_k": None if wire.top_k is None else max(0, wire.top_k),  # vLLM has -1 for all of them
        "min_p": wire.min_p,
        "typical_p": wire.typical_p,
        "repeat_penalty": wire.repetition_penalty if wire.repeat_penalty is None else wire.repeat_penalty,
        "repeat_last_n": wire.repeat_last_n,
        "stop": stop,
    }
    given = {name: value for name, value in own.items() if value is not None}
    return {**{name: value for name, value in defaults.items() if value is not None}, **wire.options, **given}


def _logit_bias(bias: Mapping[str, float]) -> dict[int, float]:
    """`BadRequest` for what is no token's id, for a bias beyond 100, and for too many of them."""
    if len(bias) > MAX_BIASED:
        raise BadRequest(f"logit_bias names {len(bias)} tokens, more than {MAX_BIASED}")
    for token, value in bias.items():
        if not token.isdecimal() or len(token) > 9:
            raise BadRequest(f"logit_bias names {quote(token[:100])}, which is no token's id")
        if not -100 <= value <= 100:
            raise BadRequest(f"logit_bias of token {token} is {value}, not between -100 and 100")
    return {int(token): value for token, value in bias.items()}


def _chat_stop(stop: Json) -> list[str] | None:
    match stop:
        case str():
            return [stop]
        case list():
            return [text for text in stop if isinstance(text, str)]
        case _:
            return None


def _completion_stop(stop: Json) -> list[str] | None:
    if isinstance(stop, list):
        wrong = next((item for item in stop if not isinstance(item, str)), None)
        if wrong is not None:
            name = "float64" if isinstance(wrong, int | float) and not isinstance(wrong, bool) else type(wrong).__name__
            raise BadRequest(f"invalid type for 'stop' field: {name}")
    return _chat_stop(stop)


def _prompts(prompt: Json) -> tuple[TextOrTokens, ...]:
    """One prompt, or several."""
    refusal = "prompt must be a text, a list of token ids, or a list of these"
    match prompt:
        case None:
            return ("",)
        case [[*_] | str(), *_]:
            return tuple(text for one in prompt for text in _texts(one, refusal))
        case _:
            return _texts(prompt, refusal)


def _texts(value: Json, refusal: str) -> tuple[TextOrTokens, ...]:
    """A text or a list of token ids; `BadRequest` with the sentence for anything else."""
    match value:
        case str():
            return (value,)
        case [_, *_] if all(isinstance(token, int) and not isinstance(token, bool) for token in value):
            return (tuple(value),)
        case _:
            raise BadRequest(refusal)


def _numbered(request: Any, wire: WireRequest) -> list[Any]:
    """The request for each of the `n` answers; with a seed, each has its own."""
    if not 1 <= wire.n <= MAX_CHOICES:
        raise BadRequest(f"n is {wire.n}, not between 1 and {MAX_CHOICES}")
    if wire.n == 1 or wire.seed is None:
        return [request] * wire.n
    return [
        msgspec.structs.replace(request, options={**request.options, "seed": wire.seed + number})
        for number in range(wire.n)
    ]
