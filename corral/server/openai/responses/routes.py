"""The routes of responses. Source: spec api §18; what is kept, as OpenAI's public reference has it."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from corral.errors import ModelRequired
from corral.messages import ChatRequest
from corral.server.http.answers import answers, describe, folded
from corral.server.http.bodies import body_converted, plain_reply
from corral.server.http.events import event_response
from corral.server.http.images import LinkedImage
from corral.server.http.requests import runtime_of
from corral.server.openai.linked import linked_images
from corral.server.openai.responses import items, replies, wire, writer
from corral.server.openai.responses.items import Item
from corral.server.openai.responses.kept import Kept, KeptResponses


async def create(request: Request) -> Response:
    """The next items of a conversation, which are kept so that others can go on from there."""
    asked, given = await body_converted(
        request, wire.WireResponseRequest, lambda asked: items.read_items(asked.input), _links
    )
    if not asked.model:
        raise ModelRequired
    echo = replies.Echo(
        id=secrets.token_hex(12),
        created=int(time.time()),
        asked=asked,
        tools=wire.called_tools(asked.tools),
    )
    kept = kept_responses(request)
    converted = await asyncio.to_thread(_converted, asked, given, kept)
    source = answers(runtime_of(request), [converted])
    if not asked.stream:
        [whole] = await folded(source)
        reply = writer.whole(echo, whole)
        await _keep(kept, echo, given, reply)
        response = plain_reply(reply)
        describe(response, whole.truncated_tokens, whole.unenforced)
        return response
    events = writer.ResponseWriter(echo)

    async def keep() -> None:
        if events.finished is not None:
            await _keep(kept, echo, given, events.finished)

    stream = await event_response(request, source, events, on_end=keep)
    stream.headers["cache-control"] = "no-cache"
    return stream


def _links(asked: wire.WireResponseRequest) -> Iterator[LinkedImage]:
    given = [item for item in asked.input if isinstance(item, dict)] if isinstance(asked.input, list) else []
    return linked_images(item.get(key) for item in given for key in ("content", "output"))


async def retrieve(request: Request) -> Response:
    """A response that was kept."""
    found = await asyncio.to_thread(kept_responses(request).find, request.path_params["id"])
    return plain_reply(found.response)


async def input_items(request: Request) -> Response:
    """What a response was asked, the last item first."""
    found = await asyncio.to_thread(kept_responses(request).find, request.path_params["id"])
    data = found.items[::-1]
    ids = [item.get("id") for item in data] or [None]
    return plain_reply({"object": "list", "data": data, "first_id": ids[0], "last_id": ids[-1], "has_more": False})


async def delete(request: Request) -> Response:
    """Deletes a response that was kept."""
    response_id = request.path_params["id"]
    await asyncio.to_thread(kept_responses(request).delete, response_id)
    return plain_reply({"id": response_id, "object": "response", "deleted": True})


def kept_responses(request: Request) -> KeptResponses:
    runtime = runtime_of(request)
    config = runtime.config
    return KeptResponses(config.state / "responses", config.keep_responses, runtime.caller.owner)


def _converted(asked: wire.WireResponseRequest, given: list[Item], kept: KeptResponses) -> ChatRequest:
    """Our request, with the conversation before it and the items it refers to; blocking."""
    before = kept.conversation(asked.previous_response_id) if asked.previous_response_id else []
    resolved = [kept.item(str(item.get("id"))) or item if item["type"] == "item_reference" else item for item in given]
    return wire.chat_request(asked, items.messages_of([*before, *resolved]))


async def _keep(kept: KeptResponses, echo: replies.Echo, given: list[Item], reply: dict[str, Any]) -> None:
    """Keeps a response unless the request says not to."""
    if echo.asked.store is not False:
        await asyncio.to_thread(kept.keep, Kept(given, reply, echo.asked.previous_response_id))
