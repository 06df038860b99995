"""The engine's border: what runs, what is asked of it, and what it hands back. Knows no process and no wire format."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from corral.messages import Json, Message, Think, TokenLogprob, Tool, ToolCall

CacheType: TypeAlias = str
"""Number type of the KV cache: `f16`, `q8_0`, …"""


class RunnerSpec(Struct, frozen=True, kw_only=True):
    """A model as it is to be loaded: its files and the options that are fixed by loading. Sizes are in tokens."""

    model: str
    """The weights' file."""
    projectors: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    mode: Literal["generate", "embed"] = "generate"
    pooling: Literal["model", "mean"] = "model"
    """How an embedding is made of token vectors: as the model says, or their mean."""
    num_ctx: int
    """Most tokens one request may hold at once."""
    num_ctx_automatic: bool = True
    """Whether nobody asked for that length, so a loaded model of any length will do."""
    slots: int = 1
    pool: int = 0
    """Tokens of KV cache that all slots share; 0: chosen when it is loaded."""
    num_batch: int | None = None
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int | None = None
    own_template: bool = True
    """Whether the chat template in the file is wanted; else the engine never runs it."""
    image_min_tokens: int = 0
    """Tokens a picture is read with at least; 0: as the projector says."""
    cache_type: CacheType = "f16"
    flash_attention: str = "auto"
    """`on`, `off` or `auto`."""
    weights_bytes: int = 0
    cache_bytes_per_token: int = 0


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen, each value within the engine's bounds. `seed` None: a new one each time."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class CompletionRequest(Struct, frozen=True, kw_only=True):
    """A prompt to go on with. `max_tokens` is always positive; `num_keep` tokens survive a context shift."""

    prompt: str | tuple[int, ...]
    media: tuple[bytes, ...] = ()
    """Files for the markers `MEDIA_MARKER` in the prompt, in order."""
    sampling: Sampling = Sampling()
    max_tokens: int
    num_keep: int = 0
    schema: Json = None
    """JSON Schema the answer must fit; None: any text."""
    preserved_tokens: tuple[str, ...] = ()
    """Special tokens whose text is to be seen in the answer."""
    top_logprobs: int | None = None
    """Alternatives to report with each token; None: no log probabilities at all."""


MEDIA_MARKER = f"<__media_{secrets.token_hex(8)}__>"
"""Where a picture or sound goes in a prompt handed to an engine; nobody else can write it."""


class EngineChat(Struct, frozen=True, kw_only=True):
    """A conversation that the engine renders and whose answer it parses."""

    messages: tuple[Message, ...]
    prompt: str = ""
    """What the engine rendered these messages to, where that is known and holds no media."""
    tools: tuple[Tool, ...] = ()
    think: Think = None
    sampling: Sampling = Sampling()
    max_tokens: int
    num_keep: int = 0
    schema: Json = None
    top_logprobs: int | None = None


class Finish(Struct, frozen=True, kw_only=True):
    """How a generation ended and what it took. Durations in nanoseconds."""

    reason: Literal["stop", "length"]
    prompt_tokens: int = 0
    """The whole prompt, cached or not."""
    cached_tokens: int = 0
    prompt_duration: int = 0
    generated_tokens: int = 0
    generation_duration: int = 0


class Piece(Struct, frozen=True):
    """What came at once: raw text, or (from `chat`) text already told apart. Only the last has a `finish`."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None


class Embeddings(Struct, frozen=True):
    """One pooled vector a text, as the engine gives them, and the tokens of all texts together."""

    vectors: list[list[float]]
    tokens: int


class Engine(Protocol):
    """A loaded model. Errors are `EngineError` and its kinds; closing an iterator cancels its work."""

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]: ...

    def chat(self, request: EngineChat) -> AsyncGenerator[Piece, None]: ...

    async def render(self, request: EngineChat) -> str:
        """The prompt that `chat` would send, with `MEDIA_MARKER` for each picture."""
        ...

    async def embed(self, inputs: Sequence[str]) -> Embeddings: ...

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]: ...

    async def detokenize(self, tokens: Sequence[int]) -> str: ...

    async def healthy(self) -> bool:
        """Whether it answers at all."""
        ...

    async def ended(self) -> str:
        """Waits until the engine is gone; returns why."""
        ...

    def memory(self) -> int:
        """Bytes of main memory it holds now."""
        ...

    async def close(self) -> None:
        """Ends it, at once or after a short grace; nothing of it is left behind."""
        ...
