"""What `/api/show`, `/api/tags` and `/api/ps` say of a model, as Ollama writes it. Source: spec api §13, §14."""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from corral import __version__, modelfile
from corral.engine.choice import Engine, wheel_version
from corral.engine.placement import Placement
from corral.gguf import GGUF, Tensor
from corral.golang import gojson, timestamps
from corral.golang.text import number_text, quote
from corral.inference.runners import Runners
from corral.machine.memory import Memory
from corral.messages import Json
from corral.models.derived import DerivedUse
from corral.models.index import Summary
from corral.models.listing import Listed
from corral.models.model import Model
from corral.options import KINDS
from corral.server.http.lists import Elsewhere
from corral.server.ollama import elsewhere
from corral.serving.requirements import Requirements
from corral.serving.runner import Runner
from corral.store import Stored

log = logging.getLogger(__name__)


def tags(models: Sequence[Listed], others: Elsewhere) -> bytes:
    """The reply of `/api/tags`. Takes about 20 µs a model.

    `spills_to`, an addition of ours: the other servers to which requests for a model that is here may go.
    """
    here = [_tag(model.stored, model.summary) for model in models]
    if others.beside:
        places = {served.name.folded: [one.url for one in served.upstreams] for served in others.beside}
        for model, entry in zip(models, here, strict=True):
            if (found := places.get(model.stored.name.folded)) is not None:
                entry["spills_to"] = found
    return gojson.encode({"models": [*here, *map(elsewhere.tag, others.alone)]})


def _tag(stored: Stored, summary: Summary) -> dict[str, Any]:
    """Where a model's files cannot be read, what the config says."""
    if summary.problem:
        log.warning("%s cannot be used: %s", stored.name, summary.problem)
        known: dict[str, Any] = {"details": _details(stored, summary)}
    else:
        lengths = {"context_length": summary.context_length, "embedding_length": summary.embedding_length}
        known = {
            "details": _details(stored, summary) | {name: length for name, length in lengths.items() if length},
            "capabilities": summary.capabilities,
        }
    name = str(stored.name)
    return {
        "name": name,
        "model": name,
        "modified_at": _moment(int(stored.modified * 1e9)),
        "size": stored.size,
        "digest": stored.digest.hex,
        **known,
    }


_moment = lru_cache(4096)(timestamps.local)
"""Lists show the same moments again and again, and writing one takes as long as all the rest of its model."""


def running(
    model: Listed | None, runner: Runner, derived: DerivedUse | None = None, *, is_live: bool = False
) -> dict[str, Any]:
    """An entry of `/api/ps`, `model` None when it was deleted since it was loaded; `size` is what the worker holds.

    `derived`, an addition of ours: what it was given instead of the model's own files.
    """
    name = runner.label if model is None else str(model.stored.name)
    return {
        "name": name,
        "model": name,
        "size": runner.size,
        "digest": "" if model is None else model.stored.digest.hex,
        "details": (_UNKNOWN if model is None else _details(model.stored, model.summary)) | {"parent_model": ""},
        "expires_at": timestamps.local(int(expiry(runner) * 1e9)),
        "size_vram": runner.size_vram if runner.loading is None else 0,
        "context_length": runner.spec.num_ctx,
        **(
            {}
            if runner.spec.placement is None
            else {"placement": _placed(runner.spec.placement, dict(runner.on_devices))}
        ),
        **({"tuned": True} if runner.spec.tuned is not None else {}),
        **({"live": _live(runner)} if is_live else {}),
        **({} if derived is None else {"derived": {"size": derived.size, "disk": derived.disk}}),
    }


def _placed(placement: Placement, held: Mapping[str, int]) -> dict[str, Any]:
    """Where a model lies, and why: an addition of ours, where there are GPUs. Layers count the output as one."""
    return {
        "layers": placement.layers,
        "of": placement.of,
        "experts_in_memory": placement.cpu_moe,
        "devices": [
            {"name": share.device, "layers": share.layers, "size": held.get(share.device, share.bytes.total)}
            for share in placement.shares
        ],
        "reason": placement.reason,
    }


def _live(runner: Runner) -> dict[str, Any]:
    """How busy a model is. Tokens of the pool are those that running requests may come to need.

    `preparing`: files are made for the engine, before any bytes are loaded.
    """
    is_loading = runner.loading is not None
    preparing = runner.progress.preparing
    traffic, pool = runner.traffic, runner.pool
    return {
        "state": "loading" if is_loading else "ready",
        **({"loading": {"completed": runner.loaded, "total": runner.spec.weights_bytes}} if is_loading else {}),
        **({"preparing": {"completed": preparing[0], "total": preparing[1]}} if is_loading and preparing else {}),
        "slots": {"busy": pool.active, "total": pool.slots},
        "pool": {"used": pool.reserved, "total": pool.tokens},
        "waiting": runner.waiting,
        "served": traffic.served,
        "prompt_tokens_per_second": round(traffic.prompt_tokens.per_second(), 1),
        "generated_tokens_per_second": round(traffic.generated_tokens.per_second(), 1),
    }


def live_server(runners: Runners, memory: Memory, engine: Engine) -> dict[str, Any]:
    """Corral's version, requests that wait for anything, the engine that models are loaded with now, and bytes of the
    machine's memory, with what the loaded models hold of it."""
    ready = [runner for runner in runners.runners if runner.loading is None]
    held = sum(runner.engine.memory() for runner in ready)
    ours: dict[str, int] = {}
    for runner in ready:
        for name, size in runner.on_devices:
            ours[name] = ours.get(name, 0) + size
    return {
        "version": __version__,
        "waiting": runners.queued,
        "engine": {"name": engine.name, "version": "" if engine.program else wheel_version()},
        "memory": {"total": memory.total, "available": memory.available, "workers": held},
        "devices": [
            {
                "name": gpu.name,
                "description": gpu.description,
                "total": gpu.total,
                "available": max(0, gpu.free - ours.get(gpu.name, 0)),
                "workers": ours.get(gpu.name, 0),
            }
            for gpu in memory.gpus
        ],
    }


_UNKNOWN: dict[str, Any] = {
    "parent_model": "",
    "format": "gguf",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


def _details(stored: Stored, summary: Summary) -> dict[str, Any]:
    """The description of a model that is the same in every reply."""
    return {
        "parent_model": stored.parent,
        "format": summary.format,
        "family": summary.family,
        "families": summary.families,
        "parameter_size": summary.parameter_size,
        "quantization_level": summary.file_type if summary.problem else summary.quantization,
    }


FOREVER_YEARS = 292
"""How far ahead "for ever" lies for Go's clients."""


def expiry(runner: Runner) -> float:
    """When it will be unloaded, in seconds since the epoch; while it is used or loads, as if it were idle from now."""
    now = time.time()
    seconds = runner.expires_at if runner.expires_at != float("inf") else now + runner.keep_alive
    return min(seconds, now + FOREVER_YEARS * 365 * 86400)


def show(
    model: Model,
    *,
    system: str = "",
    options: dict[str, Json],
    verbose: bool,
    base_name: str = "",
    needs: Requirements | None = None,
    derived: DerivedUse | None = None,
) -> bytes:
    """The reply of `/api/show`, in its order of fields; those without a value are left out.

    `base_name` is shown as `general.basename`, if it is not empty. `needs` and `derived` are additions of ours. To be
    called in a thread: `verbose` reads and shows the whole vocabulary.
    """
    file = model.published_gguf
    system = system or model.system
    reply: dict[str, Any] = {
        "license": "\n".join(model.licenses),
        "modelfile": _modelfile(model, system, model.parameters | options),
        "parameters": _parameters(model.parameters),
        "template": model.shown_template,
        "system": system,
        "details": _details(model.stored, model.summary),
        "messages": [{"role": message.role, "content": message.text} for message in model.messages],
        "model_info": _info(file, verbose),
        "projector_info": {} if model.projector_info is None else _info(model.projector_info, verbose),
        "tensors": [_tensor(tensor) for tensor in sorted(file.tensors, key=_tensor_order)],
        "capabilities": list(model.capabilities),
        "modified_at": timestamps.local(int(model.modified * 1e9)),
        "requires": model.config.requires,
        "requirements": {} if needs is None else msgspec.structs.asdict(needs),
        "derived": {} if derived is None else msgspec.structs.asdict(derived),
    }
    if base_name:
        reply["model_info"] = gojson.sort_keys(reply["model_info"] | {"general.basename": base_name})
    always = ("details", "model_info", "modified_at")
    return gojson.encode({name: value for name, value in reply.items() if value or name in always})


def _info(file: GGUF, verbose: bool) -> dict[str, Any]:
    shown: dict[str, Any] = gojson.whole_numbers(gojson.sort_keys(file.model_info(verbose=verbose)))
    return shown


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


def _tensor_order(tensor: Tensor) -> tuple[int, str]:
    block = re.search(r"(?:^|\.)blk\.(\d+)\.", tensor.name)
    return (int(block[1]) if block else -1, tensor.name)


def _parameters(parameters: dict[str, Json]) -> str:
    return "\n".join(f"{name:<30} {_shown(value)}" for name, value in _each(parameters))


def _each(parameters: dict[str, Json]) -> list[tuple[str, Json]]:
    """Names and values, a list's elements one by one; null means unset."""
    return [
        (name, item)
        for name, value in sorted(parameters.items())
        if value is not None
        for item in (value if isinstance(value, list) else [value])
    ]


def _shown(value: Json) -> str:
    return quote(value) if isinstance(value, str) else _plain(value)


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    return value if isinstance(value, str) else gojson.encode(value).decode()


def _modelfile(model: Model, system: str, parameters: dict[str, Json]) -> str:
    """A Modelfile that makes the same model again. A template that the model has no layer of is a comment."""
    template = model.go_template_text
    commands = [("FROM", str(model.weights))]
    commands += [("ADAPTER", str(path)) for path in model.adapters]
    commands += [("FROM", str(path)) for path in model.projectors]
    rest = [] if template is None else [("TEMPLATE", template)]
    rest += [("SYSTEM", system)] if system else []
    rest += [("RENDERER", model.config.renderer)] if model.config.renderer else []
    rest += [("PARSER", model.config.parser)] if model.config.parser else []
    rest += [("REQUIRES", model.config.requires)] if model.config.requires else []
    rest += [(f"PARAMETER {name}", _in_modelfile(name, value)) for name, value in _each(parameters)]
    rest += [("LICENSE", text) for text in model.licenses]
    rest += [(f"MESSAGE {message.role}", message.text) for message in model.messages]
    head = (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {model.name}\n\n"
    )
    shown = modelfile.comment("TEMPLATE", model.shown_template) if template is None else ""
    return head + modelfile.write(commands) + shown + modelfile.write(rest)


def _in_modelfile(name: str, value: Json) -> str:
    """As `_plain`, but a whole number of any size without an exponent, which no reader of Modelfiles takes."""
    match value:
        case bool():
            return _plain(value)
        case int() | float() if KINDS.get(name) == "int" and (isinstance(value, int) or value.is_integer()):
            return str(int(value))
        case _:
            return _plain(value)
