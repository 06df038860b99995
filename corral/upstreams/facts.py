"""What other servers say of a model that they have: in their list of models, and by another route where they have one.

OpenAI's API has no words for what a model can do. Ollama's has them, which Corral and others speak, too, and
llama-server says it among its properties; of others it is known where their list says so. Knows no connection.
"""

from collections.abc import Collection
from typing import Any, Literal

import msgspec
from msgspec import Struct

from corral.config.upstreams import CAPABILITIES
from corral.golang.units import count_text
from corral.upstreams import wire

MAX_CONTEXT = 1 << 31
MAX_MOMENT = 1 << 35
"""Seconds since the epoch."""

MAX_PARAMETERS = 1 << 50

MAX_LETTERS = 80
"""Of a name that is shown."""

LLAMA_SERVER = "llamacpp"
"""Whose models llama-server says they are."""

_MEANINGS = {
    **{name: name for name in CAPABILITIES},
    "chat": "completion",
    "completion_chat": "completion",
    "function_calling": "tools",
    "multimodal": "vision",
    "reasoning": "thinking",
    "embed": "embedding",
    "embeddings": "embedding",
}
"""What servers call the things that a model can do, and what these are called here."""


class Facts(Struct, frozen=True, kw_only=True):
    """What a server says of a model. 0 and empty: it does not say."""

    context_length: int = 0
    owner: str = ""
    created: int = 0
    """Seconds since the epoch."""
    is_known: bool = False
    """Whether it has said that it has the model."""
    capabilities: tuple[str, ...] = ()
    """Some of `CAPABILITIES`, in their order."""
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""


def listed(upstream: str, data: bytes, names: Collection[str]) -> Facts:
    """What the reply of `/v1/models` says of the model of one of these names; nothing where it is not listed."""
    models = wire.decoded(upstream, wire.decode_models, data).data
    found = next((one for one in models if not {one.id, *(one.aliases or ())}.isdisjoint(names)), None)
    if found is None and len(models) == 1 and models[0].owned_by == LLAMA_SERVER:
        found = models[0]  # which it asks whatever the name
    if found is None:
        return Facts()
    meta = found.meta or wire.ModelMeta()
    return Facts(
        context_length=_length(found.max_model_len) or _length(meta.n_ctx) or _length(meta.n_ctx_train),
        owner=_text(found.owned_by),
        created=found.created if found.created and 0 < found.created < MAX_MOMENT else 0,
        is_known=True,
        parameter_size=count_text(meta.n_params) if meta.n_params and 0 < meta.n_params < MAX_PARAMETERS else "",
        quantization=_text(meta.ftype or ""),
        capabilities=_known(found.capabilities) or (("embedding",) if _known([found.type]) == ("embedding",) else ()),
    )


def more_route(facts: Facts) -> Literal["/api/show", "/props", ""]:
    """The route by which a server says more of a model, judged by its list; empty: it has none."""
    if not facts.is_known or facts.owner == "vllm":
        return ""
    # What llama-server says in /api/show, where it has that, is the same whatever the model.
    return "/props" if facts.owner == LLAMA_SERVER else "/api/show"


def shown(upstream: str, data: bytes, facts: Facts) -> Facts:
    """The facts with what the reply of `/api/show` says."""
    said = wire.decoded(upstream, wire.decode_shown, data)
    architecture = said.model_info.get("general.architecture")
    return msgspec.structs.replace(
        facts,
        context_length=facts.context_length or _length(said.model_info.get(f"{architecture}.context_length")),
        capabilities=_known(said.capabilities) or facts.capabilities,
        family=_text(said.details.family),
        parameter_size=_text(said.details.parameter_size) or facts.parameter_size,
        quantization=_text(said.details.quantization_level) or facts.quantization,
    )


def properties(upstream: str, data: bytes, facts: Facts) -> Facts:
    """The facts with what llama-server's reply of `/props` says: the context that a request gets, what its template
    and its projector can do."""
    said = wire.decoded(upstream, wire.decode_properties, data)
    template, modalities = said.chat_template_caps, said.modalities
    found = {
        "completion": True,
        "tools": template is None or (template.supports_tools and template.supports_tool_calls),
        "vision": modalities.vision,
        "audio": modalities.audio,
    }
    return msgspec.structs.replace(
        facts,
        context_length=_length(said.default_generation_settings.n_ctx) or facts.context_length,
        capabilities=_known(found),
    )


def _known(said: Any) -> tuple[str, ...]:
    """What of a list of capabilities, or of an object that has each as true or false, is known here."""
    match said:
        case dict():
            named = [name for name, value in said.items() if value is True]
        case list() | tuple():
            named = [name for name in said if isinstance(name, str)]
        case _:
            return ()
    meant = {_MEANINGS.get(name.lower()) for name in named}
    return tuple(one for one in CAPABILITIES if one in meant)


def _length(said: Any) -> int:
    return said if type(said) is int and 0 < said < MAX_CONTEXT else 0


def _text(said: str) -> str:
    return wire.message_of(said)[:MAX_LETTERS]
