"""What our server answers, as values, and how they are read from its JSON. Every member is checked: servers lie.

Members are checked by hand: importing msgspec takes 10 ms, a ninth of `corral list`. `run` and `pull`, which wait for a
model anyway, load it with the values of `messages`. Source: spec api §7, §8, §13-§15.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import unquote

from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client.live import Live
    from corral.messages import AnswerProgress, Chunk, Metrics, Progress, Rendered, ToolCall

Json: TypeAlias = Any
T = TypeVar("T")

TRUNCATED, UNENFORCED = STREAM_HEADERS = ("x-corral-truncated-tokens", "x-corral-unenforced")
"""Headers that describe a streamed answer; the client adds them to the members of its first line."""
VERSION = "x-corral-version"
"""The header with Corral's own version; other servers do not send it."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which release of Ollama the server answers as, and which of Corral it is; empty where it does not say."""

    ollama: str
    corral: str


@dataclass(frozen=True, slots=True)
class Installed:
    """A model of the store. `digest` is its manifest's, as the server writes it; `size` is in bytes."""

    name: str
    digest: str
    size: int
    modified_at: datetime
    remote: bool


@dataclass(frozen=True, slots=True)
class Running:
    """A loaded model. Sizes are bytes of memory; `expires_at` is when an idle one is unloaded."""

    name: str
    digest: str
    size: int
    size_vram: int
    context_length: int
    expires_at: datetime
    live: "Live | None" = None
    """None where the server was not asked, or does not say."""
    tuned: bool = False
    """Whether it was loaded with what `corral tune` has measured."""
    derived: int = 0
    """Bytes of files that were made for the engine of those of the model; 0: none, or the server does not say."""
    placement: str = ""
    """Where it lies and why, as a sentence; empty: there are no GPUs, or the server does not say."""
    remote: bool = False
    """Whether another server has it."""


@dataclass(frozen=True, slots=True)
class DerivedFiles:
    """What the engine is given instead of a model's own files: bytes, those that take room on the disk, and whether it
    has been made."""

    size: int
    disk: int
    made: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of memory that a model takes when it is loaded, and the tokens of context that it then has."""

    weights: int
    context_length: int
    kv_cache: int
    total: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """Another server that answers for a model: where, what it calls the model, and what is wrong with it; empty where
    nothing is."""

    url: str
    model: str
    error: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of a model (spec api §13). Texts are empty where the model has none."""

    license: str
    modelfile: str
    parameters: str
    template: str
    system: str
    requires: str
    remote_model: str
    remote_host: str
    capabilities: tuple[str, ...]
    details: Mapping[str, Json]
    model_info: Mapping[str, Json]
    projector_info: Mapping[str, Json]
    messages: tuple[tuple[str, str], ...]
    """Role and content of the conversation that the model begins with."""
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    """Name, type and shape."""
    needs: Needs | None
    """None where the server does not say."""
    derived: DerivedFiles | None
    """None where the engine is given the model's own files."""
    upstreams: tuple[Upstream, ...] = ()
    """Where other servers answer for it."""

    @property
    def sees_or_hears(self) -> bool:
        """Whether a prompt may come with pictures or sound (spec cli §4.2)."""
        return (
            "vision" in self.capabilities
            or "audio" in self.capabilities
            or bool(self.projector_info)
            or any(".vision." in key for key in self.model_info)
        )


def version(value: Mapping[str, Json], header: str | None) -> Version:
    """The answer of `/api/version` and its header `VERSION`."""
    found = Version(member(value, "version", str, ""), header or "")
    for text in (found.ollama, found.corral):
        if not re.fullmatch(r"[0-9A-Za-z.+_-]{0,64}", text):
            raise unexpected("version")
    return found


def progress(value: Mapping[str, Json]) -> "Progress":
    """One line of a long job."""
    from corral.messages import Progress

    return Progress(
        member(value, "status", str, ""),
        member(value, "digest", str, ""),
        member(value, "total", int, 0),
        member(value, "completed", int, 0),
    )


def generated(line: Mapping[str, Json]) -> "Chunk":
    """One line of `/api/generate`."""
    return _chunk(line, line, "response")


def chatted(line: Mapping[str, Json]) -> "Chunk":
    """One line of `/api/chat`."""
    return _chunk(line, member(line, "message", dict, {}), "content")


def _chunk(line: Mapping[str, Json], said: Mapping[str, Json], content: str) -> "Chunk":
    from corral.messages import Chunk

    done = member(line, "done", bool, False)
    context = line.get("context")
    return Chunk(
        content=member(said, content, str, ""),
        thinking=member(said, "thinking", str, ""),
        tool_calls=tuple(map(_tool_call, members(said, "tool_calls"))),
        done_reason=(member(line, "done_reason", str, "") or "stop") if done else "",
        metrics=_metrics(line) if done else None,
        context=None if context is None else tuple_of(context, int, "context"),
        truncated_tokens=_number(line, TRUNCATED) or member(line, "truncated_tokens", int, 0),
        unenforced=tuple(map(unquote, filter(None, member(line, UNENFORCED, str, "").split(", "))))
        or tuple_of(member(line, "unenforced", list, []), str, "unenforced"),
        progress=_answer_progress(member(line, "progress", dict, {})),
    )


def _answer_progress(value: Mapping[str, Json]) -> "AnswerProgress | None":
    """None where there is none, or one of a stage that is not known here: later servers may have more."""
    from corral.messages import AnswerProgress

    stage = member(value, "stage", str, "")
    if stage not in ("queued", "preparing", "loading", "reading"):
        return None
    completed, total, cached, ahead = (
        max(0, member(value, key, int, 0)) for key in ("completed", "total", "cached", "ahead")
    )
    return AnswerProgress(stage, min(completed, total), total, min(cached, completed, total), ahead)  # type: ignore[arg-type]


def _number(line: Mapping[str, Json], header: str) -> int:
    text = member(line, header, str, "0")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise unexpected(header)
    return int(text)


def _metrics(line: Mapping[str, Json]) -> "Metrics":
    from corral.messages import Metrics

    return Metrics(
        total_duration=member(line, "total_duration", int, 0),
        load_duration=member(line, "load_duration", int, 0),
        prompt_eval_count=member(line, "prompt_eval_count", int, 0),
        prompt_eval_duration=member(line, "prompt_eval_duration", int, 0),
        eval_count=member(line, "eval_count", int, 0),
        eval_duration=member(line, "eval_duration", int, 0),
        cached_tokens=member(line, "cached_tokens", int, 0),
        drafted_tokens=member(line, "drafted_tokens", int, 0),
        accepted_tokens=member(line, "accepted_tokens", int, 0),
    )


def _tool_call(value: Mapping[str, Json]) -> "ToolCall":
    from corral.messages import ToolCall

    function = member(value, "function", dict, {})
    return ToolCall(
        name=member(function, "name", str, ""),
        arguments=member(function, "arguments", dict, {}),
        index=member(function, "index", int, 0),
        id=member(value, "id", str, ""),
    )


def installed(value: Mapping[str, Json]) -> Installed:
    """One entry of `/api/tags`."""
    return Installed(
        name=member(value, "name", str, ""),
        digest=member(value, "digest", str, ""),
        size=member(value, "size", int, 0),
        modified_at=moment(value, "modified_at"),
        remote=bool(member(value, "remote_model", str, "")),
    )


def running(value: Mapping[str, Json]) -> Running:
    """One entry of `/api/ps`."""
    return Running(
        name=member(value, "name", str, ""),
        digest=member(value, "digest", str, ""),
        size=member(value, "size", int, 0),
        size_vram=member(value, "size_vram", int, 0),
        context_length=member(value, "context_length", int, 0),
        expires_at=moment(value, "expires_at"),
        live=_live(member(value, "live", dict, {})),
        tuned=member(value, "tuned", bool, False),
        derived=member(member(value, "derived", dict, {}), "size", int, 0),
        placement=member(member(value, "placement", dict, {}), "reason", str, ""),
        remote=bool(member(value, "remote_model", str, "")),
    )


def _live(value: Mapping[str, Json]) -> "Live | None":
    if not value:
        return None
    from corral.client.live import live

    return live(value)


def shown(value: Mapping[str, Json]) -> Shown:
    """The answer of `/api/show`."""
    return Shown(
        license=member(value, "license", str, ""),
        modelfile=member(value, "modelfile", str, ""),
        parameters=member(value, "parameters", str, ""),
        template=member(value, "template", str, ""),
        system=member(value, "system", str, ""),
        requires=member(value, "requires", str, ""),
        remote_model=member(value, "remote_model", str, ""),
        remote_host=member(value, "remote_host", str, ""),
        capabilities=tuple_of(member(value, "capabilities", list, []), str, "capabilities"),
        details=member(value, "details", dict, {}),
        model_info=member(value, "model_info", dict, {}),
        projector_info=member(value, "projector_info", dict, {}),
        messages=tuple(
            (member(message, "role", str, ""), member(message, "content", str, ""))
            for message in members(value, "messages")
        ),
        tensors=tuple(
            (
                member(tensor, "name", str, ""),
                member(tensor, "type", str, ""),
                tuple_of(member(tensor, "shape", list, []), int, "shape"),
            )
            for tensor in members(value, "tensors")
        ),
        needs=_needs(member(value, "requirements", dict, {})),
        derived=_derived(member(value, "derived", dict, {})),
        upstreams=tuple(
            Upstream(member(one, "url", str, ""), member(one, "model", str, ""), member(one, "error", str, ""))
            for one in members(value, "upstreams")
        ),
    )


def _derived(value: Mapping[str, Json]) -> DerivedFiles | None:
    if not value:
        return None
    made = member(value, "made", bool, False)
    return DerivedFiles(member(value, "size", int, 0), member(value, "disk", int, 0), made)


def _needs(value: Mapping[str, Json]) -> Needs | None:
    if not value:
        return None
    return Needs(*(member(value, key, int, 0) for key in ("weights", "context_length", "kv_cache", "total")))


def rendered(value: Mapping[str, Json]) -> "Rendered":
    """The answer of `/api/render`."""
    from corral.messages import Rendered

    template = member(value, "template", str, "go")
    if template not in ("go", "jinja"):
        raise unexpected("template")
    return Rendered(
        text=member(value, "prompt", str, ""),
        images=member(value, "images", int, 0),
        tokens=member(value, "tokens", int, 0),
        context_length=member(value, "context_length", int, 0),
        truncated_tokens=member(value, "truncated_tokens", int, 0),
        template="go" if template == "go" else "jinja",
        messages=member(value, "messages", int, 0),
    )


def member(value: Mapping[str, Json], key: str, kind: type[T], default: T) -> T:
    """A member of the kind it must have; `default` when it is absent or null."""
    member = value.get(key)
    if member is None:
        return default
    if not isinstance(member, kind) or (isinstance(member, bool) and kind is not bool):
        raise unexpected(key)
    if isinstance(member, int) and not -(1 << 63) <= member < 1 << 63:
        raise unexpected(key)
    return member


def members(value: Mapping[str, Json], key: str) -> list[dict[str, Json]]:
    """A member that is a list of objects."""
    members = member(value, key, list, [])
    if not all(isinstance(member, dict) for member in members):
        raise unexpected(key)
    return members


def models(value: Mapping[str, Json]) -> list[dict[str, Json]]:
    """The models of a list. One without the member comes from another program that answers with JSON."""
    if "models" not in value:
        raise CorralError('the server\'s answer is not understood: it has no "models"')
    return members(value, "models")


def tuple_of(value: Json, kind: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise unexpected(key)
    return tuple(value)


def moment(value: Mapping[str, Json], key: str) -> datetime:
    """A member that is a time, with its zone; year 1 when it is absent or empty."""
    text = member(value, key, str, "") or "0001-01-01T00:00:00Z"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise unexpected(key) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def unexpected(key: str) -> CorralError:
    return CorralError(f'the server\'s answer is not understood: unexpected value of "{key}"')
