"""Ollama's routes that ask a model: requests decoded, chunks encoded. Source: spec api §7–10, §16."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from corral import EMULATES, __version__, inference, names
from corral.errors import BadRequest, ModelRequired
from corral.golang import gojson
from corral.inference import Chunks
from corral.inference.embedding import Vectors
from corral.messages import Chunk, EmbedRequest, TokenText
from corral.server.http.answers import describe
from corral.server.http.bodies import body_as, body_converted, encoded_reply, reply
from corral.server.http.folding import fold
from corral.server.http.keep_alive import read_keep_alive
from corral.server.http.reading import hold_more
from corral.server.http.requests import runtime_of
from corral.server.http.reranking import ranked
from corral.server.http.streaming import NDJSON, Stream
from corral.server.http.weight import VECTOR_BYTES
from corral.server.ollama import lines, wire
from corral.server.ollama.replies import PLAIN_TEXT

Encode = Callable[[Chunk], lines.WireGenerateChunk | lines.WireChatChunk]


async def root(request: Request) -> Response:
    """Says that a server is here."""
    return Response("Ollama is running", headers={"content-type": PLAIN_TEXT})


async def version(request: Request) -> Response:
    """The release of Ollama that is matched; a header has that of Corral."""
    response = reply({"version": EMULATES})
    response.headers["x-corral-version"] = __version__  # Ollama's answer has no room for a second one
    return response


async def status(request: Request) -> Response:
    """Whether models in the cloud can be used: they cannot."""
    return reply({"cloud": {"disabled": True, "source": "env"}})


async def me(request: Request) -> Response:
    """The account that is signed in: there is none."""
    response = reply({"error": "unauthorized", "signin_url": ""})
    response.status_code = 401
    return response


async def generate(request: Request) -> Response:
    """The continuation of a prompt."""
    asked, converted = await body_converted(request, wire.WireGenerateRequest, wire.generate_request)
    answer = inference.answer(runtime_of(request), converted)

    def encode(chunk: Chunk) -> lines.WireGenerateChunk:
        line = lines.generate_chunk(asked.model, chunk)
        return lines.with_progress(line, chunk) if converted.progress else line

    return await _answer(answer, asked.stream, encode)


async def chat(request: Request) -> Response:
    """The next message of a conversation."""
    asked, converted = await body_converted(request, wire.WireChatRequest, wire.chat_request)
    answer = inference.answer(runtime_of(request), converted)

    def encode(chunk: Chunk) -> lines.WireChatChunk:
        line = lines.chat_chunk(asked.model, chunk)
        return lines.with_progress(line, chunk) if converted.progress else line

    return await _answer(answer, asked.stream, encode)


async def render(request: Request) -> Response:
    """The prompt that a conversation amounts to, for those who write templates: an addition of Corral's."""
    asked, converted = await body_converted(request, wire.WireChatRequest, wire.chat_request)
    if not asked.messages:
        raise BadRequest("messages are missing")
    only_rendered = msgspec.structs.replace(converted, render_only=True)
    async with inference.answer(runtime_of(request), only_rendered) as chunks:
        shown = (await anext(chunks)).rendered
    assert shown is not None, "a request that only renders is answered with the prompt"
    fields = msgspec.to_builtins(shown)
    return reply({"model": asked.model, "prompt": fields.pop("text"), **fields})


async def _answer(answer: AbstractAsyncContextManager[Chunks], stream: bool, encode: Encode) -> Response:
    """Chunks as an answer: lines when asked for and there is something to stream, else one object.

    The first chunk decides: an error before it has its own status, and what was only loaded, unloaded or rendered is
    plain JSON (spec api §7.3, §7.6). It also says what was cut from the prompt and which parts of a schema are not
    enforced, which clients see in headers. Progress that comes first makes it a stream of status 200 in any case.
    """
    async with contextlib.AsyncExitStack() as stack:
        chunks = await stack.enter_async_context(answer)
        first = await anext(chunks)
        if first.rendered is not None or (first.done_reason and first.metrics is None):
            return reply(encode(first))
        if stream:
            write = lines.LineWriter(encode)
            response: Response = Stream(write(first), chunks, write, NDJSON, stack.pop_all())
        else:
            response = reply(encode(await fold(first, chunks)))
    describe(response, first.truncated_tokens, first.unenforced)
    return response


async def embed(request: Request) -> Response:
    """Texts as vectors."""
    asked = await body_as(request, wire.WireEmbedRequest)
    keep_alive = read_keep_alive(asked.keep_alive)
    if not asked.model:
        raise ModelRequired
    names.parse_reference(asked.model)
    if not wire.input_is_text(asked.input):
        raise BadRequest("invalid input type")
    converted = wire.embed_request(asked, keep_alive)
    await hold_more(request, VECTOR_BYTES * len(converted.inputs))
    vectors = await inference.embed(runtime_of(request), converted)
    if not vectors.vectors:
        return reply(lines.WireEmbedding(asked.model, []))
    response = encoded_reply(await asyncio.to_thread(_encoded, asked.model, vectors))
    describe(response, vectors.truncated_tokens)
    return response


def _encoded(model: str, vectors: Vectors) -> bytes:
    rows = [lines.float32_texts(vector) for vector in vectors.vectors]
    answer = lines.WireEmbedding(model, rows, vectors.total_duration, vectors.load_duration, vectors.tokens)
    return gojson.encode(answer)


async def embeddings(request: Request) -> Response:
    """The legacy route: one text, nothing cut (spec api §10.2)."""
    asked = await body_as(request, wire.WireEmbeddingRequest)
    keep_alive = read_keep_alive(asked.keep_alive)
    if not asked.model:
        raise ModelRequired
    vectors = await inference.embed(
        runtime_of(request),
        EmbedRequest(
            model=asked.model,
            inputs=(asked.prompt,) if asked.prompt else (),
            truncate=False,
            options=asked.options,
            keep_alive=keep_alive,
        ),
    )
    return reply({"embedding": lines.widened(vectors.vectors[0]) if vectors.vectors else []})


async def rerank(request: Request) -> Response:
    """Documents in the order in which they answer a query: an addition of ours."""
    answer, scores = await ranked(request)
    answer |= {"total_duration": scores.total_duration, "load_duration": scores.load_duration}
    response = encoded_reply(await asyncio.to_thread(gojson.encode, answer))
    describe(response, scores.truncated_tokens)
    return response


async def tokenize(request: Request) -> Response:
    """A text as the model's tokens: an addition of Corral's."""
    asked, converted = await body_converted(request, wire.WireTokenizeRequest, wire.tokenize_request)
    found = await inference.tokenize(runtime_of(request), converted)
    return await _token_reply(asked.model, {"tokens": found.tokens, "count": len(found.tokens)}, found)


async def detokenize(request: Request) -> Response:
    """The model's tokens as text: an addition of Corral's."""
    asked, converted = await body_converted(request, wire.WireDetokenizeRequest, wire.detokenize_request)
    found = await inference.detokenize(runtime_of(request), converted)
    return await _token_reply(asked.model, {"content": found.text}, found)


async def _token_reply(model: str, found: dict[str, Any], took: TokenText) -> Response:
    durations = {"total_duration": took.total_duration, "load_duration": took.load_duration}
    return encoded_reply(await asyncio.to_thread(gojson.encode, {"model": model, **found, **durations}))
