"""Anthropic's routes: requests decoded, chunks encoded. Source: spec api §20."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from corral import inference
from corral.messages import ChatRequest
from corral.server.anthropic import replies, wire
from corral.server.anthropic.linked import linked_images
from corral.server.http.answers import answers, describe, folded
from corral.server.http.bodies import body_converted, plain_reply
from corral.server.http.events import event_response
from corral.server.http.images import LinkedImage
from corral.server.http.requests import runtime_of

CHARACTERS_PER_TOKEN = 4
"""About, where a prompt has not been counted yet."""


async def messages(request: Request) -> Response:
    """The next message of a conversation."""
    asked, (converted, with_cache) = await body_converted(request, wire.WireMessagesRequest, _converted, _links)
    source = answers(runtime_of(request), [converted])
    if asked.stream:
        estimate = sum(len(message.text) for message in converted.messages) // CHARACTERS_PER_TOKEN
        writer = replies.MessageWriter(asked.model, estimate, with_cache=with_cache)
        stream = await event_response(request, source, writer)
        stream.headers["cache-control"] = "no-cache"
        return stream
    [whole] = await folded(source)
    response = plain_reply(replies.message(asked.model, whole, with_cache=with_cache))
    describe(response, whole.truncated_tokens, whole.unenforced)
    return response


async def count_tokens(request: Request) -> Response:
    """How many tokens the prompt of a conversation has, pictures left aside."""
    _, converted = await body_converted(request, wire.WireMessagesRequest, wire.counted_request, _links)
    async with inference.answer(runtime_of(request), converted) as chunks:
        rendered = (await anext(chunks)).rendered
    assert rendered is not None, "a request that only renders is answered with the prompt"
    return plain_reply({"input_tokens": rendered.tokens})


def _converted(asked: wire.WireMessagesRequest) -> tuple[ChatRequest, bool]:
    """Our request, and whether the answer is to say what was found in the prompt cache."""
    return wire.chat_request(asked), wire.has_cache_control(asked.whole)


def _links(asked: wire.WireMessagesRequest) -> Iterator[LinkedImage]:
    return linked_images(message.content for message in asked.messages)
