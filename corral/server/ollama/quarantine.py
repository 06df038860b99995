"""`/api/quarantine`: files that are not loaded, and how they are released. An addition of Corral's."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral import names
from corral.errors import Forbidden, ModelRequired
from corral.models.quarantine import Kept
from corral.names import Digest, Name
from corral.server.http.bodies import body_as, reply
from corral.server.http.requests import runtime_of
from corral.server.ollama.models import named
from corral.store import Store


class WireReleaseRequest(Struct):
    """`model`: the name of a model, or the digest of one file. `for_good`: also when the checks have changed."""

    model: str = ""
    for_good: bool = False


async def listed(request: Request) -> Response:
    """The files in quarantine and those that were released from it, each with the reason and the models that have it.

    A file comes there when it fails the checks before its first load, or when loading it crashes twice in a row.
    """
    runtime = runtime_of(request)
    found = await runtime.models.store.run(runtime.quarantine.all)
    may_use = runtime.caller.may_use
    if runtime.caller.is_limited:
        found = [one for one in found if any(map(may_use, one.models))]
    return reply({"files": [_shown(one, [name for name in one.models if may_use(name)]) for one in found]})


async def release(request: Request) -> Response:
    """Has the files of a model that are in quarantine, or one file by its digest, loaded all the same."""
    asked = await body_as(request, WireReleaseRequest)
    if not asked.model:
        raise ModelRequired
    runtime = runtime_of(request)
    if not asked.model.startswith(_DIGEST):
        runtime.caller.require_model(named(asked.model, f'name "{asked.model}" is invalid'))
    elif runtime.caller.is_limited:
        raise Forbidden("your key is for some models only; name the one whose files are to be released")
    store = runtime.models.store
    digests = await store.run(_digests, store, asked.model)
    released = await store.run(runtime.quarantine.release, digests, for_good=asked.for_good)
    return reply({"released": [str(digest) for digest in released]})


_DIGEST = ("sha256:", "sha256-")


def _digests(store: Store, text: str) -> list[Digest]:
    """Those of a model's files, or the one that the text is."""
    if text.startswith(_DIGEST):
        return [names.parse_digest(text)]
    stored = store.manifest(named(text, f'name "{text}" is invalid'))
    return [layer.digest for layer in stored.manifest.layers]


def _shown(one: Kept, models: Sequence[Name]) -> dict[str, Any]:
    return {
        "digest": str(one.digest),
        "reason": one.reason,
        "models": [str(name) for name in models],
        "released": one.released,
        "for_good": one.for_good,
    }
