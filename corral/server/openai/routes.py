"""OpenAI's routes: requests decoded, chunks encoded. Source: spec api §17."""

import asyncio
import base64
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from corral import inference, names
from corral.errors import ModelNotFound, Unsupported
from corral.golang import gojson
from corral.golang.text import shortest_float32
from corral.inference.embedding import Vectors
from corral.inference.served_state import ServedState
from corral.messages import ChatRequest, Chunk, GenerateRequest
from corral.models.listing import Listed
from corral.server.http.answers import answers, describe, folded
from corral.server.http.bodies import body_converted, plain_reply
from corral.server.http.events import EventWriter, event_response
from corral.server.http.forms import form_of
from corral.server.http.images import LinkedImage
from corral.server.http.lists import Elsewhere, listed_as
from corral.server.http.reading import hold_more
from corral.server.http.requests import runtime_of
from corral.server.http.reranking import ranked
from corral.server.http.streaming import PLAIN_JSON
from corral.server.http.weight import VECTOR_BYTES
from corral.server.openai import chat, completions, transcriptions, wire
from corral.server.openai.linked import linked_images
from corral.store import Stored

Encode: TypeAlias = Callable[[str, Sequence[Chunk]], dict[str, Any]]
"""A model's name and its whole answers, as the reply."""


async def chat_completions(request: Request) -> Response:
    """The next message of a conversation."""
    asked, converted = await body_converted(request, wire.WireChatRequest, wire.chat_requests, _links)
    if not asked.stream:
        return await _whole(request, asked, converted, chat.completion)
    usage = asked.stream_options.include_usage
    return await _streamed(request, converted, chat.ChatWriter(asked.model, len(converted), include_usage=usage))


def _links(asked: wire.WireChatRequest) -> Iterator[LinkedImage]:
    return linked_images(message.content for message in asked.messages)


async def text_completions(request: Request) -> Response:
    """The continuation of one or several prompts."""
    asked, converted = await body_converted(request, wire.WireCompletionRequest, wire.completion_requests)
    if not asked.stream:
        return await _whole(request, asked, converted, completions.completion)
    usage = asked.stream_options.include_usage
    writer = completions.CompletionWriter(asked.model, len(converted), include_usage=usage)
    return await _streamed(request, converted, writer)


async def _whole(
    request: Request, asked: wire.WireRequest, converted: Sequence[ChatRequest | GenerateRequest], encode: Encode
) -> Response:
    wholes = await folded(answers(runtime_of(request), converted))
    response = plain_reply(encode(asked.model, wholes))
    describe(response, wholes[0].truncated_tokens, wholes[0].unenforced)
    return response


async def _streamed(
    request: Request, converted: Sequence[ChatRequest | GenerateRequest], writer: EventWriter
) -> Response:
    return await event_response(request, answers(runtime_of(request), converted), writer)


async def transcribe(request: Request) -> Response:
    """What is said in a recording: WAV, MP3 or FLAC, for a model that hears. Times are not known."""
    asked = transcriptions.transcription(await form_of(request))
    runtime = runtime_of(request)
    model = await inference.find_model(runtime, asked.request.model)
    if "audio" not in model.capabilities:
        raise Unsupported(asked.request.model, "audio", model.name.full)
    if asked.stream:
        return await _streamed(request, [asked.request], transcriptions.TranscriptionWriter())
    (whole,) = await folded(answers(runtime, [asked.request]))
    answer = transcriptions.answer(whole)
    if asked.format == "text":
        return Response(answer["text"], headers={"content-type": "text/plain; charset=utf-8"})
    return plain_reply(answer)


async def embeddings(request: Request) -> Response:
    """Texts or token ids as vectors."""
    asked, converted = await body_converted(request, wire.WireEmbedRequest, wire.embed_request)
    await hold_more(request, VECTOR_BYTES * len(converted.inputs))
    vectors = await inference.embed(runtime_of(request), converted)
    as_base64 = asked.encoding_format.lower() == "base64"
    response = Response(
        await asyncio.to_thread(_encoded_vectors, asked.model, vectors, as_base64=as_base64),
        headers={"content-type": PLAIN_JSON},
    )
    describe(response, vectors.truncated_tokens)
    return response


def _encoded_vectors(model: str, vectors: Vectors, *, as_base64: bool) -> bytes:
    """Numbers as the shortest decimals of single precision, or the bytes of little-endian ones (spec api §17.6)."""

    def shown(vector: list[float]) -> list[float] | str:
        if as_base64:
            return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        return [shortest_float32(value) for value in vector]

    data = [
        {"object": "embedding", "embedding": shown(vector), "index": number}
        for number, vector in enumerate(vectors.vectors)
    ]
    usage = {"prompt_tokens": vectors.tokens, "total_tokens": vectors.tokens}
    return gojson.encode({"object": "list", "data": data, "model": model, "usage": usage})


async def rerank(request: Request) -> Response:
    """Documents in the order in which they answer a query. OpenAI's API has no such route; Jina's and Cohere's do."""
    answer, scores = await ranked(request)
    response = Response(await asyncio.to_thread(gojson.encode, answer), headers={"content-type": PLAIN_JSON})
    describe(response, scores.truncated_tokens)
    return response


async def models(request: Request) -> Response:
    """The models in the store."""
    return Response(await listed_as(_models, runtime_of(request)), headers={"content-type": PLAIN_JSON})


async def model(request: Request) -> Response:
    """One model by its name, which may have slashes; the name is shown as it was asked for."""
    text = request.path_params["name"]
    name = names.parse_reference(text).name
    runtime = runtime_of(request)
    runtime.caller.require_model(name)
    store = runtime.models.store
    try:
        stored = await store.run(store.manifest, name)
    except ModelNotFound as error:
        if (served := runtime.elsewhere.of(name)) is not None:
            return plain_reply(_elsewhere(text, served.state()))
        raise ModelNotFound(str(name)) from error
    return plain_reply(_model(text, stored, stored.name.namespace))


def _models(listed: Sequence[Listed], others: Elsewhere) -> bytes:
    data = [_model(str(model.stored.name), model.stored, model.stored.name.namespace) for model in listed]
    data += [_elsewhere(str(served.name), served) for served in others.alone]
    return gojson.encode({"object": "list", "data": data})


def _elsewhere(shown_name: str, served: ServedState) -> dict[str, object]:
    """A model that other servers have. The length of its context is said as vLLM says it; what it can do, for clients
    that ask no other route."""
    length = {"max_model_len": served.context_length} if served.context_length else {}
    more = {"owned_by": served.owner or served.name.namespace, **length, "capabilities": served.capabilities}
    return {"id": shown_name, "object": "model", "created": served.created, **more}


def _model(shown_name: str, stored: Stored, owner: str) -> dict[str, object]:
    return {"id": shown_name, "object": "model", "created": int(stored.modified), "owned_by": owner}
