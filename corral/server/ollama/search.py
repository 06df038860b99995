"""`/api/search`: models that can be pulled, and whether they would fit. An addition of Corral's."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from corral.config import Config
from corral.errors import BadRequest
from corral.golang.units import count_text
from corral.machine.memory import Memory
from corral.server.http.bodies import reply
from corral.server.http.requests import runtime_of
from corral.serving.requirements import fit, forecast, without
from corral.sources.hub import Found, Hub, Quantisation
from corral.sources.hub.files import HOST

LIMIT, MOST = 10, 50
"""How many repositories are looked at unless the request says, and at most."""
MAX_QUERY = 200
USUAL = "Q4_K_M"
"""The kind that the hub gives where no tag is asked for."""


async def search(request: Request) -> Response:
    """Finds models that can be pulled from Hugging Face, and says which would fit into this machine's memory."""
    asked = request.query_params
    text, limit = _query(asked.get("q", "")), _limit(asked.get("limit", ""))
    runtime = runtime_of(request)
    found = await Hub(runtime.config.hub).search(text, limit)
    memory = without([runner.spec for runner in runtime.runners.runners], runtime.machine.memory())
    return reply(
        {
            "models": [_shown(one, runtime.config, memory) for one in found],
            "memory": {"total": memory.total, "available": memory.available, "gpus": sum(g.free for g in memory.gpus)},
        }
    )


def _query(text: str) -> str:
    """The words to look for; of an address or a name as it is pulled, the owner and the repository."""
    words = text.strip()
    for beginning in ("https://", "http://"):
        words = words.removeprefix(beginning)
    for host in (f"{HOST}/", "huggingface.co/"):
        if words.startswith(host):
            words = words.removeprefix(host).partition(":")[0]
    if not words:
        raise BadRequest("q is required: the words to look for")
    if len(words) > MAX_QUERY or not words.isprintable():
        raise BadRequest(f"q must be one line of at most {MAX_QUERY} characters")
    return words


def _limit(text: str) -> int:
    if not text:
        return LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 0 < int(text) <= MOST):
        raise BadRequest(f'limit must be a number from 1 to {MOST}, got "{text[:40]}"')
    return int(text)


def _shown(found: Found, config: Config, memory: Memory) -> dict[str, Any]:
    """An entry of the reply; what is not known is left out."""
    rows = [_quantisation(found, one, config, memory) for one in found.quantisations]
    known = {
        "modified_at": found.updated.isoformat() if found.updated else "",
        "architecture": found.architecture,
        "parameter_size": count_text(found.parameters) if found.parameters else "",
        "context_length": found.context_length,
        "suggested": rows[suggested(rows)]["name"] if rows else "",
        "error": found.error,
    }
    counted = {"downloads": found.downloads, "likes": found.likes, "gated": found.gated}
    named = {"name": f"{HOST}/{found.id}", **counted, **{key: value for key, value in known.items() if value}}
    return {**named, "quantizations": rows}


def _quantisation(found: Found, one: Quantisation, config: Config, memory: Memory) -> dict[str, Any]:
    needs = forecast(one.size, found.cache_elements or 0, found.context_length, config, memory)
    requirements = msgspec.structs.asdict(needs)
    if found.cache_elements is None:  # how much the context takes is not known
        del requirements["kv_cache"], requirements["context_length"]
    return {
        "name": str(one.name),
        "quantization_level": one.level,
        "size": one.size,
        "requirements": requirements,
        "fits": fit(needs.total, memory),
    }


def suggested(rows: Sequence[Mapping[str, Any]]) -> int:
    """The place of the quantisation to begin with: the usual one if it fits, else the largest that does, else the
    smallest, which is the first."""
    for wanted in ("yes", "tight"):
        places = [place for place, row in enumerate(rows) if row["fits"] == wanted]
        if places:
            usual = [place for place in places if rows[place]["quantization_level"] == USUAL]
            return usual[0] if usual else places[-1]
    return 0
