"""The middle's own words for what is asked and answered. No wire format, no storage ids.

Every dialect is turned into these.

The values are frozen msgspec structs: as cheap as tuples to make, which matters for what is made once a token.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from corral.media_kinds import SOUNDS, kind_of

Json: TypeAlias = Any
"""Any JSON value: None, bool, int, float, str, list or dict with string keys, in the order it came in."""

Role: TypeAlias = str
"""`system`, `user`, `assistant` or `tool` as a rule; lower case; other roles are handed to the template as they are."""

Think: TypeAlias = bool | Literal["low", "medium", "high", "max"] | None
"""Whether and how hard the model is to think; None: not said."""


class ToolCall(Struct, frozen=True):
    """One call of a tool by the model. `arguments` keeps the order the model wrote."""

    name: str
    arguments: dict[str, Json] = {}
    index: int = 0
    id: str = ""


class Tool(Struct, frozen=True):
    """A tool the model may call. `parameters` is a JSON Schema object reduced to what spec api §5.6 lets through."""

    name: str
    description: str = ""
    parameters: dict[str, Json] = {}
    type: str = "function"
    items: Json = None
    schema: dict[str, Json] | None = None
    """The schema that the arguments of a forced call must fit; None: `parameters`."""
    strict: bool | None = None
    """Whether the arguments of every call are to fit the schema; None: not said. Other servers are asked for it."""
    more: dict[str, Json] = {}
    """What else the definition says, for other servers that may know it."""


class ToolChoice(Struct, frozen=True):
    """What the caller wants of tools; `name` narrows `required` to one tool."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str = ""


class Text(Struct, frozen=True):
    """A part of a message in words."""

    text: str


class Picture(Struct, frozen=True):
    """A part of a message to look at: the file's bytes, as they came."""

    data: bytes


class Sound(Struct, frozen=True):
    """A part of a message to listen to: the file's bytes, as they came."""

    data: bytes


Media: TypeAlias = Picture | Sound
Part: TypeAlias = Text | Media


def media_of(file: bytes) -> Media:
    """A file as a part of a message: a sound by its first bytes, or else a picture, checked when it is read."""
    return Sound(file) if kind_of(file) in SOUNDS else Picture(file)


class Message(Struct, frozen=True, kw_only=True):
    """One turn of a conversation. The parts of its content are in the order in which the model reads them."""

    role: Role
    content: tuple[Part, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""

    @classmethod
    def of(cls, role: Role, text: str = "", *, media: Sequence[Media] = (), **fields: Any) -> "Message":
        """A message of a text, with pictures and sounds at its `[img]` marks, the rest of them behind it."""
        return cls(role=role, content=_placed(text, media), **fields)

    @property
    def text(self) -> str:
        """The words of all parts."""
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def media(self) -> tuple[Media, ...]:
        """The pictures and sounds, in order."""
        return tuple(part for part in self.content if not isinstance(part, Text))


def _placed(text: str, media: Sequence[Media]) -> tuple[Part, ...]:
    """Spec cli §15.4. An empty text behind a mark at the end says that the file stands there on purpose."""
    first, *rest = text.split("[img]", len(media))
    placed: list[Part] = [Text(first)] if first else []
    for file, words in zip(media, rest, strict=False):
        placed += [file, Text(words)]
    return (*placed, *media[len(rest) :])


class AnswerRequest(Struct, frozen=True, kw_only=True):
    """What the requests for an answer have in common."""

    model: str
    format: Json = None
    """None, `"json"`, or a JSON Schema object; anything else is refused when the prompt is made."""
    options: dict[str, Json] = {}
    think: Think = None
    must_think: bool = True
    """Whether a model that cannot think as asked is refused."""
    keep_alive: float | None = None
    """Seconds to stay loaded after the last use; infinity: for ever; None: not said."""
    truncate: bool = True
    """Whether the oldest turns may be left out where a prompt does not fit the context."""
    shift: bool | None = None
    """Whether the context may be shifted while the model answers; None: as the model can."""
    logit_bias: dict[int, float] = {}
    """What is added to the logits of tokens before one is drawn, by their ids."""
    logprobs: bool = False
    top_logprobs: int = 0
    """Alternatives to report with each token."""
    render_only: bool = False
    """Whether only the prompt is wanted."""
    progress: bool = False
    """Whether chunks are to say what is happening before the answer begins."""
    count_prompt: bool = False
    """Whether the first chunk is to say how many tokens the prompt has."""
    count_thinking: bool = False
    """Whether the metrics are to say how many tokens of the answer were thoughts."""


class ChatRequest(AnswerRequest, frozen=True, kw_only=True):
    """A conversation to go on with. No messages: load the model, or unload it when `keep_alive` is 0."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_calls: bool = True
    """Whether an answer may have more than one call."""


class GenerateRequest(AnswerRequest, frozen=True, kw_only=True):
    """A single prompt to complete. An empty prompt: load the model, or unload it when `keep_alive` is 0."""

    prompt: str = ""
    prompt_tokens: tuple[int, ...] = ()
    """The prompt as token ids; empty: `prompt` is the prompt."""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: tuple[int, ...] = ()
    raw: bool = False
    media: tuple[Media, ...] = ()


class EmbedRequest(Struct, frozen=True, kw_only=True):
    """Texts, or their token ids, to turn into vectors. `dimensions` 0: all of them."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...] = ()
    truncate: bool = True
    dimensions: int = 0
    options: dict[str, Json] = {}
    keep_alive: float | None = None


class RankRequest(Struct, frozen=True, kw_only=True):
    """Documents to score by how well each answers a query. `truncate`: what does not fit of a document is left out."""

    model: str
    query: str
    documents: tuple[str, ...]
    truncate: bool = True
    options: dict[str, Json] = {}
    keep_alive: float | None = None


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """A text to split into tokens. `add_special`: with what the model puts around a prompt, such as BOS."""

    model: str
    text: str = ""
    add_special: bool = False
    options: dict[str, Json] = {}
    keep_alive: float | None = None


class DetokenizeRequest(Struct, frozen=True, kw_only=True):
    """Token ids to turn into text."""

    model: str
    tokens: tuple[int, ...] = ()
    options: dict[str, Json] = {}
    keep_alive: float | None = None


class TokenText(Struct, frozen=True, kw_only=True):
    """A text and its token ids. Durations in nanoseconds."""

    text: str
    tokens: tuple[int, ...]
    total_duration: int = 0
    load_duration: int = 0


class TokenLogprob(Struct, frozen=True):
    """A token's text, its natural log probability, and the likeliest alternatives, best first."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top: tuple["TokenLogprob", ...] = ()


class Metrics(Struct, frozen=True, kw_only=True):
    """What an answer cost. Durations in nanoseconds, the rest are tokens (spec api §5.7)."""

    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    """The whole prompt, whether read or found in the prompt cache."""
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    cached_tokens: int = 0
    truncated_tokens: int = 0
    """Prompt tokens left out to fit the context."""
    thinking_tokens: int = 0
    """Those of `eval_count` that were thoughts, where that was asked for."""
    drafted_tokens: int = 0
    """Tokens that speculation proposed to the model, and those of them that it took."""
    accepted_tokens: int = 0


class Rendered(Struct, frozen=True, kw_only=True):
    """A prompt to look at. Lengths are in tokens; pictures are not among them."""

    text: str
    images: int = 0
    tokens: int = 0
    context_length: int = 0
    truncated_tokens: int = 0
    """Left out to fit the context."""
    template: Literal["go", "jinja"] = "go"
    """Which of a model's templates wrote it: ours to run, or the engine's."""
    messages: int = 0
    """How many of the conversation, stored and system ones included, are in it."""


class AnswerProgress(Struct, frozen=True):
    """What is happening before an answer begins.

    `queued`: it waits behind others; `preparing`: files are made for the engine, counts are bytes; `loading`: its model
    is loaded, counts are bytes; `reading`: the model reads the prompt, counts are tokens. `total` is 0 where it is not
    known.
    """

    stage: Literal["queued", "preparing", "loading", "reading"]
    completed: int = 0
    """How much of `total` is loaded, or has been read or found in the prompt cache."""
    total: int = 0
    cached: int = 0
    """Tokens of `completed` that were found in the prompt cache."""
    ahead: int = 0
    """How many requests wait in front of this one."""


class Chunk(Struct, frozen=True):
    """One step of an answer. The last one has a `done_reason` and metrics: `stop`, `length`, `load` or `unload`."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    done_reason: str = ""
    stop_text: str = ""
    """The stop word that ended the answer, on the last chunk; empty where none did."""
    metrics: Metrics | None = None
    context: tuple[int, ...] | None = None
    """Token ids of prompt and answer, on the last chunk of a completion."""
    rendered: Rendered | None = None
    """The prompt itself, when only that was asked for."""
    truncated_tokens: int = 0
    """Prompt tokens left out to fit the context, on the first and the last chunk."""
    unenforced: tuple[str, ...] = ()
    """Parts of the format's schema that are not enforced, as JSON pointers, on the first chunk."""
    prompt_tokens: int = 0
    """Tokens of the prompt without pictures, on the first chunk where that was asked for."""
    progress: AnswerProgress | None = None
    """What is happening before the answer begins, where that was asked for: a chunk that holds nothing else."""


class Progress(Struct, frozen=True):
    """One step of a long job: pull, push, create. `digest` is empty and byte counts are 0 where they do not apply."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
