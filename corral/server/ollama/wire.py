"""Ollama's requests, as JSON has them, turned into ours. Names and leniency are the contract.

Source: spec api §1, §5, §7, §8, §10. What is answered: `lines`.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from corral.errors import BadRequest
from corral.golang.text import quote
from corral.messages import (
    ChatRequest,
    DetokenizeRequest,
    EmbedRequest,
    GenerateRequest,
    Json,
    Message,
    Think,
    TokenizeRequest,
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
