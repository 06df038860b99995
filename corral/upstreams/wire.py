"""What OpenAI-compatible servers say, as types that are read strictly: a value of another kind is an error.

What only some of them say is optional: vLLM's `stop_reason` and `reasoning`, llama-server's `timings`.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from corral.errors import UpstreamError
from corral.messages import TokenLogprob

T = TypeVar("T")

Byte = Annotated[int, Meta(ge=0, le=255)]


class FunctionDelta(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class CallDelta(Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta = FunctionDelta()


class Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallDelta] | None = None


class Alternative(Struct, frozen=True):
    token: str = ""
    bytes: tuple[Byte, ...] | None = None
    logprob: float | None = None


class Logprob(Alternative, frozen=True):
    top_logprobs: list[Alternative] | None = None


class ChatLogprobs(Struct, frozen=True):
    content: list[Logprob] | None = None


class ChatChoice(Struct, frozen=True):
    index: int = 0
    delta: Delta = Delta()
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM: the stop word that matched, or the id of a token."""
    logprobs: ChatLogprobs | None = None


class PromptDetails(Struct, frozen=True):
    cached_tokens: int | None = None


class CompletionDetails(Struct, frozen=True):
    reasoning_tokens: int | None = None


class Usage(Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Timings(Struct, frozen=True):
    """llama-server's."""

    cache_n: int = 0
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0
    draft_n: int = 0
    draft_n_accepted: int = 0


class ChatEvent(Struct, frozen=True):
    choices: list[ChatChoice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    error: Any = None
    model: str | None = None


class TextLogprobs(Struct, frozen=True):
    """Of completions: lists side by side, one entry a token."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class TextChoice(Struct, frozen=True):
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Any = None
    """`TextLogprobs`, or as in a chat, which llama-server and others say here, too."""


class TextEvent(Struct, frozen=True):
    choices: list[TextChoice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    error: Any = None
    model: str | None = None


class Vector(Struct, frozen=True):
    embedding: list[float]
    index: int


class EmbeddingAnswer(Struct, frozen=True):
    data: list[Vector]
    usage: Usage | None = None


class ModelMeta(Struct, frozen=True):
    """llama-server's."""

    n_ctx: int | None = None
    """Tokens that a request may have."""
    n_ctx_train: int | None = None
    n_params: int | None = None
    ftype: str | None = None


class ListedModel(Struct, frozen=True):
    id: str
    owned_by: str = ""
    created: int | None = None
    max_model_len: int | None = None
    """vLLM's: tokens of context."""
    meta: ModelMeta | None = None
    aliases: list[str] | None = None
    """llama-server's: further names."""
    type: Any = None
    capabilities: Any = None
    """Some servers': a list of words, or an object that has each as true or false."""


class ModelList(Struct, frozen=True):
    data: list[ListedModel]


class ShownDetails(Struct, frozen=True):
    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""


class ShownModel(Struct, frozen=True):
    """Of `/api/show`, as Ollama and those have it that speak its API."""

    capabilities: Any = None
    details: ShownDetails = ShownDetails()
    model_info: dict[str, Any] = {}


class TemplateAbilities(Struct, frozen=True):
    supports_tools: bool = True
    supports_tool_calls: bool = True


class Modalities(Struct, frozen=True):
    vision: bool = False
    audio: bool = False


class GenerationSettings(Struct, frozen=True):
    n_ctx: int | None = None


class Properties(Struct, frozen=True):
    """Of llama-server's `/props`."""

    chat_template_caps: TemplateAbilities | None = None
    modalities: Modalities = Modalities()
    default_generation_settings: GenerationSettings = GenerationSettings()


decode_chat = msgspec.json.Decoder(ChatEvent).decode
decode_text = msgspec.json.Decoder(TextEvent).decode
decode_embeddings = msgspec.json.Decoder(EmbeddingAnswer).decode
decode_models = msgspec.json.Decoder(ModelList).decode
decode_shown = msgspec.json.Decoder(ShownModel).decode
decode_properties = msgspec.json.Decoder(Properties).decode


def decoded(name: str, decode: Callable[[bytes], T], data: bytes) -> T:
    """`UpstreamError` that names the server, for what is no JSON of this kind."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(name, f"answers what cannot be read: {error}") from error


def message_of(error: Any) -> str:
    """The sentence in an error, in whatever form servers write it; empty where there is none."""
    match error:
        case {"error": inner}:
            return message_of(inner)
        case {"message": str(text)} | {"detail": str(text)} | str(text):
            shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:1000]).split())
            return shown[:300]
        case _:
            return ""


def chat_logprobs(found: ChatLogprobs | None, top: int) -> tuple[TokenLogprob, ...]:
    if found is None or not found.content:
        return ()
    return tuple(_logprob(one, (one.top_logprobs or ())[:top]) for one in found.content)


def text_logprobs(name: str, found: Any, top: int) -> tuple[TokenLogprob, ...]:
    if not isinstance(found, dict):
        return ()
    try:
        if "content" in found:
            return chat_logprobs(msgspec.convert(found, ChatLogprobs), top)
        lists = msgspec.convert(found, TextLogprobs)
    except msgspec.ValidationError as error:
        raise UpstreamError(name, f"answers what cannot be read: {error}") from error
    tops = lists.top_logprobs or [None] * len(lists.tokens)
    return tuple(
        _logprob(
            Alternative(token, None, logprob),
            [Alternative(text, None, value) for text, value in list((others or {}).items())[:top]],
        )
        for token, logprob, others in zip(lists.tokens, lists.token_logprobs, tops, strict=False)
    )


def _logprob(one: Alternative, top: "list[Alternative] | tuple[Alternative, ...]") -> TokenLogprob:
    raw = tuple(one.token.encode("utf-8", "replace")) if one.bytes is None else one.bytes
    return TokenLogprob(one.token, min(0.0, one.logprob or 0.0), raw, tuple(_logprob(other, ()) for other in top))
