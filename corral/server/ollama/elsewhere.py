"""What `/api/tags`, `/api/show` and `/api/ps` say of a model that other servers answer for. Source: spec api §13, §14.

Ollama has `remote_host` and `remote_model` for models in its vendor's cloud; here they are the first server's.
"""

import hashlib
import time
from typing import Any

from corral.golang import timestamps
from corral.inference.served_state import ServedState

FOREVER = 292 * 365 * 86400
"""Seconds: how far ahead "for ever" lies for Go's clients."""


def tag(served: ServedState) -> dict[str, Any]:
    """An entry of `/api/tags`. Nothing of it lies on this disk."""
    return {
        **_named(served),
        "modified_at": timestamps.local(served.created * 10**9),
        "size": 0,
        "digest": _digest(served),
        "details": _details(served),
        "capabilities": served.capabilities,
    }


def running(served: ServedState) -> dict[str, Any]:
    """An entry of `/api/ps`, of one that works: other servers keep their models loaded as they like."""
    return {
        **_named(served),
        "size": 0,
        "digest": _digest(served),
        "details": _details(served),
        "expires_at": timestamps.local(int((time.time() + FOREVER) * 1e9)),
        "size_vram": 0,
        "context_length": served.context_length,
        "capabilities": served.capabilities,
    }


def shown(served: ServedState) -> dict[str, Any]:
    """The reply of `/api/show`; `upstreams` is an addition of ours. Clients look for a context length by the
    architecture's name."""
    named, architecture = _named(served), served.described.family or "remote"
    length = {f"{architecture}.context_length": served.context_length} if served.context_length else {}
    return {
        "details": _details(served),
        "remote_model": named["remote_model"],
        "remote_host": named["remote_host"],
        "model_info": {"general.architecture": architecture, "general.basename": named["remote_model"], **length},
        "capabilities": served.capabilities,
        "modified_at": timestamps.local(served.created * 10**9),
        "upstreams": [
            {
                "url": one.url,
                "model": one.model,
                "error": one.error or one.remark,
                "capabilities": one.facts.capabilities,
                "context_length": one.facts.context_length,
                "owned_by": one.facts.owner,
            }
            for one in served.upstreams
        ],
    }


def _named(served: ServedState) -> dict[str, Any]:
    name, first = str(served.name), served.upstreams[0]
    return {"name": name, "model": name, "remote_model": first.model, "remote_host": first.url}


def _digest(served: ServedState) -> str:
    """Of where it is, as there are no files: clients tell models apart by it."""
    places = "".join(f"\n{one.url} {one.model}" for one in served.upstreams)
    return hashlib.sha256(f"{served.name}{places}".encode()).hexdigest()


def _details(served: ServedState) -> dict[str, Any]:
    length, said = {"context_length": served.context_length} if served.context_length else {}, served.described
    return {
        "parent_model": "",
        "format": "",
        "family": said.family,
        "families": [said.family] if said.family else None,
        "parameter_size": said.parameter_size,
        "quantization_level": said.quantization,
        **length,
    }
