"""`/api/keys`: the keys of this server; `/api/key`: that of the request. Additions of Corral's."""

from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral.access.keys import Key, Wish
from corral.errors import BadRequest
from corral.golang import timestamps
from corral.server.http.access import access_of, set_subject
from corral.server.http.bodies import body_as, reply
from corral.server.http.requests import runtime_of


class WireKeyRequest(Struct):
    name: str = ""
    scope: str = "infer"
    models: list[str] = []
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


class WireRevokeRequest(Struct):
    key: str = ""
    """Its id or its name."""


async def current(request: Request) -> Response:
    """The key that the request came with, if it is one of this server's, and whether the server asks for one."""
    key = runtime_of(request).caller.key
    return reply({"needed": access_of(request.scope).is_needed, "key": None if key is None else described(key)})


async def listed(request: Request) -> Response:
    """The keys of this server, the oldest first, without their secrets."""
    return reply({"keys": [described(key) for key in await access_of(request.scope).keys()]})


async def create(request: Request) -> Response:
    """Makes a key. Its secret is in this reply and is kept nowhere."""
    asked = await body_as(request, WireKeyRequest)
    wish = Wish(
        name=asked.name,
        scope=asked.scope,
        models=tuple(asked.models),
        requests_per_minute=asked.requests_per_minute,
        tokens_per_minute=asked.tokens_per_minute,
    )
    key, secret = await access_of(request.scope).add(wish)
    set_subject(request.scope, key)
    response = reply({**described(key), "secret": secret})
    response.status_code = 201
    response.headers["cache-control"] = "no-store"
    return response


async def revoke(request: Request) -> Response:
    """Revokes a key. Answers that are under way end as ever."""
    asked = await body_as(request, WireRevokeRequest)
    if not asked.key:
        raise BadRequest("key is required: the id or the name of the one to revoke")
    key = await access_of(request.scope).revoke(asked.key)
    set_subject(request.scope, key)
    return reply(described(key))


def described(key: Key) -> dict[str, Any]:
    """What is shown of a key."""
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "models": list(key.models),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "created_at": timestamps.local(key.created * 1_000_000_000),
    }
