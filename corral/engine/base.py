"""What an engine is: how a model is loaded, what is asked of it, and what it answers.

Knows no process and no wire format.
"""

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from corral.engine.placement import Bytes, Parts, Placement
from corral.messages import AnswerProgress, Json, Message, Think, TokenLogprob, Tool, ToolCall

CacheType: TypeAlias = str
"""Number type of the KV cache: `f16`, `q8_0`, …"""


class TunedSettings(Struct, frozen=True, kw_only=True):
    """What was measured to be fastest for one model on one machine; what is not given is as without."""

    num_thread: int = 0
    num_batch: int = 0
    """Most tokens computed in one step."""
    flash_attention: str = ""
    cache_type: CacheType = ""
    repack: bool = True
    """Whether weights are rearranged in memory as the processor's instructions like them."""
    ngram_draft: int | None = None
    """As in `RunnerSpec`; None: not measured."""


class RunnerSpec(Struct, frozen=True, kw_only=True):
    """A model as it is to be loaded: its files and the options that are fixed by loading.

    `corral.engine.load_options` says what each field means to an engine.
    """

    model: str
    """The weights' file."""
    projectors: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    mode: Literal["generate", "embed", "rank"] = "generate"
    """What it is loaded for: to write text, to make vectors of texts, or to say how well documents answer a query."""
    pooling: Literal["model", "mean"] = "model"
    """How an embedding is made of token vectors: as the model says, or their mean."""
    num_ctx: int
    """The context length: most tokens one request may hold at once, prompt and answer together."""
    num_ctx_automatic: bool = True
    """Whether the request left that length open, so that a loaded model of any length can serve it."""
    grown_ctx: int = 0
    """The context length to load instead, memory permitting, where the model was loaded with one that became too short;
    0: `num_ctx`."""
    slots: int = 1
    """Requests that are computed at once, at most."""
    pool: int = 0
    """Tokens of KV cache that all slots share; 0: the scheduler chooses when the model is loaded."""
    num_batch: int | None = None
    """Most tokens computed in one step; None: chosen by the context length."""
    text_batch: int = 0
    """Most tokens of one text to embed that memory has room to compute at once; 0: 2048. `num_batch` replaces it."""
    compute_bytes: int = 0
    """An estimate of the memory that computing so long a text takes, beside weights and cache."""
    num_gpu: int = -1
    """Layers in GPU memory; -1: as many as fit."""
    main_gpu: int | None = None
    """The GPU that holds what is not divided, counted from 0; None: the first."""
    use_mmap: bool | None = None
    """Whether weights are mapped into memory instead of read; None: the engine chooses."""
    num_thread: int = 0
    """Threads that compute; 0: the engine chooses."""
    draft_num_predict: int | None = None
    """Tokens drafted in one step; None: not given."""
    ngram_draft: int = 0
    """Most tokens drafted in one step from text that repeats itself; 0: none are."""
    draft_model: str = ""
    """The weights' file of a model that drafts tokens for it; empty: none does."""
    draft_tokens: int = 0
    """Most tokens that it drafts in one step."""
    needs_logprobs: bool = False
    """Whether the request wants log probabilities, which the engine does not say of tokens that were drafted."""
    tuned: TunedSettings | None = None
    """What `corral tune` has found for this model; None: nothing that holds here."""
    own_template: bool = True
    """Whether the chat template in the file is wanted; else the engine never runs it."""
    image_min_tokens: int = 0
    """Least tokens a picture is represented by; 0: as the projector says."""
    cache_type: CacheType = "f16"
    flash_attention: str = "auto"
    """`on`, `off` or `auto`."""
    weights_bytes: int = 0
    """Size of all files, an estimate of what the weights take."""
    cache_bytes_per_token: int = 0
    """Bytes of KV cache a token takes."""
    parts: Parts | None = None
    """What the weights consist of; None: not known, and the engine places them itself."""
    placement: Placement | None = None
    """Where they are to lie; None: there are no devices, or the engine decides."""
    resumable: bool = False
    """Whether a conversation that is written to disk and read again goes on exactly as it would have."""


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
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit)."""


class CompletionRequest(Struct, frozen=True, kw_only=True):
    """A prompt to continue. `max_tokens` is positive; the first `num_keep` tokens survive a context shift."""

    prompt: str | tuple[int, ...]
    written: tuple[int, ...] = ()
    """Tokens behind the prompt that the model has written already, without a picture before them."""
    media: tuple[bytes, ...] = ()
    """Files for the markers `MEDIA_MARKER` in the prompt, in order."""
    sampling: Sampling = Sampling()
    max_tokens: int
    num_keep: int = 0
    schema: Json = None
    """JSON Schema the answer must fit; None: any text."""
    grammar: str = ""
    """The schema as a grammar of llguidance's, for an engine that has it; empty: the schema says as much."""
    preserved_tokens: tuple[str, ...] = ()
    """Special tokens whose text is kept in the answer; that of others is left out."""
    top_logprobs: int | None = None
    """Alternatives to report with each token; None: no log probabilities at all."""
    progress: bool = False
    """Whether pieces before the first text are to say how far the prompt has been read."""


MEDIA_MARKER = f"<__media_{secrets.token_hex(8)}__>"
"""Where a picture or sound goes in a prompt for an engine; random, so that no text from outside contains it."""


class EngineChat(Struct, frozen=True, kw_only=True):
    """A conversation that the engine renders and whose answer it parses.

    The model goes on with a last message of its own, unless that has calls of tools.
    """

    messages: tuple[Message, ...]
    prompt: str = ""
    """What `Engine.render` gave for these messages, where that is known and holds no media; empty: not known."""
    tools: tuple[Tool, ...] = ()
    call_schemas: tuple[dict[str, Json], ...] = ()
    """Schemas that the arguments of the tools' calls must fit, one a tool; empty: the tools' own parameters."""
    shown_schemas: tuple[dict[str, Json], ...] = ()
    """Schemas that the template gets instead of the tools' own parameters, one a tool; empty: these."""
    parallel_calls: bool = True
    """Whether there may be more than one call."""
    think: Think = None
    sampling: Sampling = Sampling()
    max_tokens: int
    num_keep: int = 0
    schema: Json = None
    top_logprobs: int | None = None
    progress: bool = False
    """As in `CompletionRequest`."""


class Finish(Struct, frozen=True, kw_only=True):
    """How an answer ended and what it took. Durations in nanoseconds."""

    reason: Literal["stop", "length"]
    """`stop`: at a stop word or because the model ended; `length`: at `max_tokens` or at the end of the context."""
    stop_text: str = ""
    """Which of `Sampling.stop` matched; empty: none did."""
    prompt_tokens: int = 0
    """Tokens of the whole prompt, cached or not."""
    cached_tokens: int = 0
    """Those of them that were found in the prompt cache."""
    prompt_duration: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Tokens that speculation proposed to the model."""
    accepted_tokens: int = 0
    """Those of them that it would have written itself; they are among the `generated_tokens`."""
    generation_duration: int = 0


class Piece(Struct, frozen=True):
    """What an engine sent at once: raw text and its tokens from `complete`; text, thinking or calls from `chat`.

    Only the last one has a `finish`. `logprobs` are there when the request wants them, one a token. A piece with
    `progress` has nothing else.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None
    progress: AnswerProgress | None = None
    """How far the prompt has been read, where the request wants that and the engine can tell."""


class Embeddings(Struct, frozen=True):
    """One pooled vector a text, in their order, and the tokens of all texts together."""

    vectors: list[list[float]]
    tokens: int


class Ranking(Struct, frozen=True):
    """One score a document, in their order, and the tokens of all pairs of query and document together."""

    scores: list[float]
    tokens: int


class Keeping(Struct, frozen=True):
    """Where an engine keeps conversations while it is not loaded: a folder for those of this very model, loaded in this
    very way, the bytes that all of them may take, and what is called after some were written, in a thread."""

    folder: str
    most_bytes: int
    written: Callable[[], None] = lambda: None


class LoadProgress:
    """How far a load is. What loads sets these; `loaded` is called only when that is wanted."""

    def __init__(self) -> None:
        self.loaded: Callable[[], int] = lambda: 0
        """Bytes of the model that are in memory, about."""
        self.signs: Callable[[], tuple[float, int]] = lambda: (0.0, 0)
        """What grows while the engine computes or prints: seconds of the processor, and bytes."""
        self.pool: int | None = None
        """Tokens of the pool that the engine has instead of the one that was wanted; None: it has that."""
        self.preparing: tuple[int, int] | None = None
        """Bytes that are written of all that are wanted, while files are made for the engine before it loads."""


class Engine(Protocol):
    """A loaded model, wherever it runs. Everything is in tokens, nanoseconds and bytes.

    Errors: `EngineRefused` when the engine calls a request bad, `EngineDied` when it is gone, other `EngineError`s when
    it fails. An error may come at any piece of a stream. Closing an iterator early cancels its work and frees its slot.
    """

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        """The pieces of raw text that the model says after a prompt; the last one has the `finish`.

        A text prompt is tokenized as `tokenize(…, add_special=True)` does, token ids are taken as they are, and neither
        may be empty. A stop word is not part of the text. A prompt that alone does not fit the context length is
        refused before the first piece; beyond it the engine shifts the context, keeping `num_keep` tokens.
        """
        ...

    def chat(self, request: EngineChat) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer to a conversation, which the engine writes with the model's own template and parses.

        Text and thinking come apart as they are said; complete tool calls come with the last piece, which has the
        `finish`. Lengths as in `complete`. A conversation that the template refuses is `EngineRefused`; a template that
        could not be run when the model was loaded is an `EngineError`.
        """
        ...

    async def render(self, request: EngineChat) -> str:
        """The prompt that `chat` would send, with `MEDIA_MARKER` for each picture or sound.

        Errors as those of `chat`. A template that runs beyond its time or memory is an `EngineError`, after which the
        engine wants to be replaced (`retiring`).
        """
        ...

    async def embed(self, inputs: Sequence[str]) -> Embeddings:
        """One vector a text, in the order of the texts, each of the model's embedding length and not normalised.

        Texts are tokenized with special tokens, which `Embeddings.tokens` counts. A text that is longer than a batch
        (`load_options.batches`) refuses the whole request, as does one without any token; a value that is not a number
        comes as NaN. Only after a load with `mode="embed"`.
        """
        ...

    async def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        """How well each document answers the query, in the order of the documents, as the model's head says it.

        Query and document are computed together, with special tokens around them, which `Ranking.tokens` counts. A pair
        that is longer than a batch refuses the whole request; a score that is not a number comes as NaN. Only after a
        load with `mode="rank"`.
        """
        ...

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """The token ids of a text, of any length. Special tokens in it are recognised.

        `add_special` adds what the model puts around a prompt, such as BOS.
        """
        ...

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens included; an id that is not in the vocabulary is an `EngineError`."""
        ...

    async def healthy(self) -> bool:
        """Whether it answers a ping within ten seconds."""
        ...

    async def ended(self) -> str:
        """Waits until the engine is gone; returns the reason: `stopped` after `close`, else how it ended."""
        ...

    async def retiring(self) -> str:
        """Waits until the engine should get no new requests; returns the reason.

        Those under way are still served. The owner closes it after the last of them; most engines never retire.
        """
        ...

    def memory(self) -> int:
        """Bytes of main memory it holds now; 0 when it is gone."""
        ...

    def on_devices(self) -> Mapping[str, Bytes]:
        """What it holds on each device by its own figures after the load; empty where it did not say."""
        ...

    async def device_error(self) -> str:
        """What it said of a device that failed, after it has ended; empty where none did."""
        ...

    async def keep(self) -> None:
        """Writes the conversations in its cache to disk, where one that is loaded later in the same way finds them.

        Only those of requests that have ended, and only where a place was given for them. May be cancelled at any time:
        what is not finished then is not kept. What cannot be written is logged and left.
        """
        ...

    async def close(self) -> None:
        """Ends it, at once or after a short grace, with every request under way; nothing of it is left behind."""
        ...
