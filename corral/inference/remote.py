"""A request that another server answers: asked in its words, and its pieces turned into chunks.

Knows upstreams and readers; which server is asked is the subject of `elsewhere.py`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from corral.engine.base import Piece
from corral.errors import NotHere
from corral.inference.metrics import RequestMetrics
from corral.inference.prompt import conversation
from corral.inference.reading import Reader
from corral.messages import ChatRequest, Chunk, GenerateRequest, Message, ToolCall
from corral.models.model import Model
from corral.parsers.rescue import RescueParser
from corral.parsers.tagged import Chained
from corral.parsers.thinking import ThinkingParser
from corral.replicas.prefixes import LARGE, size_of
from corral.upstreams import bodies
from corral.upstreams.answer import Answer, Asked, ChatAnswer, TextAnswer
from corral.upstreams.client import Client

THINK_TAGS = ("<think>", "</think>")
"""Around thoughts that a server leaves in the text."""


def refusal(request: ChatRequest | GenerateRequest) -> NotHere | None:
    """Why a request can only be answered by a model in the store; None where another server can answer it."""
    if request.render_only:
        return NotHere(request.model, "requests that only render a prompt")
    if isinstance(request, ChatRequest):
        return None
    wanted = (
        ("prompts as tokens", request.prompt_tokens),
        ("`context` of an earlier answer", request.context),
        ("`suffix`", request.suffix),
        ("`template`", request.template),
        ("pictures with raw prompts", request.raw and request.media),
    )
    what = next((what for what, given in wanted if given), None)
    return None if what is None else NotHere(request.model, what)


class Remote(Struct, frozen=True):
    """A request as a server gets it."""

    path: str
    body: bytes
    asked: Asked

    def answer(self, name: str) -> Answer:
        """What reads the answer of the server of that name."""
        kind = TextAnswer if self.path == "/v1/completions" else ChatAnswer
        return kind(name, self.asked)


async def remote(client: Client, request: ChatRequest | GenerateRequest, model: Model | None) -> Remote:
    """A request for a server. `model`: the one of that name in the store, whose parameters, system text and messages
    count here as they do there. `BadRequest` and its kinds."""
    if size_of(request) > LARGE:
        return await asyncio.to_thread(_remote, client, request, model)
    return _remote(client, request, model)


def _remote(client: Client, request: ChatRequest | GenerateRequest, model: Model | None) -> Remote:
    given = request.options if model is None else {**model.parameters, **request.options}
    path = "/v1/chat/completions"
    if isinstance(request, ChatRequest):
        messages = request.messages if model is None else conversation(model, request.messages)
        body = bodies.chat_body(client.model, request, messages, given)
    elif request.raw:
        path, body = "/v1/completions", bodies.raw_body(client.model, request, given)
    else:
        body = bodies.single_body(client.model, request, _single(request, model), given)
    asked = Asked(
        size=len(body),
        max_tokens=bodies.max_tokens(given),
        top_logprobs=request.top_logprobs if request.logprobs else None,
        model=client.model,
    )
    return Remote(path, body, asked)


def _single(request: GenerateRequest, model: Model | None) -> list[Message]:
    system = request.system or ("" if model is None else model.system)
    stored = () if model is None else model.messages
    begin = (Message.of("system", system),) if system else ()
    return [*begin, *stored, Message.of("user", request.prompt, media=request.media)]


async def chunks_of(
    client: Client, request: ChatRequest | GenerateRequest, sent: Remote, metrics: RequestMetrics
) -> AsyncGenerator[Chunk, None]:
    """The chunks of an answer, the last one with a `done_reason`, metrics and the calls of tools.

    Errors are those of `Client`. Closing it ends the work.
    """
    answer = sent.answer(client.name)
    reader = _AnswerReader(request)
    metrics.planned(0, (), has_loosened_tools=False)
    with metrics.serving():
        async with aclosing(client.stream(sent.path, sent.body, answer)) as pieces:
            async for piece in pieces:
                metrics.passed(piece)
                for chunk in reader.read(piece):
                    yield chunk if metrics.has_begun else metrics.annotate_first(chunk)
                if piece.finish is not None:
                    last = metrics.last(piece.finish, reader.warnings(piece), None)
                    yield _finished(last, reader.calls, answer.thinking_tokens if request.count_thinking else 0)


def _finished(last: Chunk, calls: list[ToolCall], thinking_tokens: int) -> Chunk:
    metrics = last.metrics
    if metrics is not None and thinking_tokens:
        metrics = msgspec.structs.replace(metrics, thinking_tokens=thinking_tokens)
    return msgspec.structs.replace(last, tool_calls=tuple(calls), metrics=metrics)


class _AnswerReader:
    """Pieces → chunks. Thoughts and calls that the server has left in the text are found; calls wait for the end."""

    def __init__(self, request: ChatRequest | GenerateRequest) -> None:
        self.calls: list[ToolCall] = []
        self._thoughts: ThinkingParser | None = None
        self._rescues = isinstance(request, ChatRequest) and bool(request.tools)
        self._reader = Reader(None)
        if isinstance(request, GenerateRequest) and request.raw:
            return
        self._thoughts = ThinkingParser(*THINK_TAGS)
        if isinstance(request, ChatRequest) and request.tools:
            self._reader = Reader(Chained(self._thoughts, RescueParser(request.tools)))
        else:
            self._reader = Reader(self._thoughts)

    def read(self, piece: Piece) -> list[Chunk]:
        found = [*self._reader.read(piece), *(self._reader.end() if piece.finish is not None else ())]
        if self._thoughts is not None and not self._rescues and self._thoughts.is_past:
            self._thoughts, self._reader = None, Reader(None)  # all that comes passes through
        if not self._rescues and not piece.tool_calls:
            return found
        for chunk in found:
            self.calls += chunk.tool_calls
        without = [msgspec.structs.replace(one, tool_calls=()) if one.tool_calls else one for one in found]
        return [one for one in without if one.content or one.thinking or one.logprobs]

    def warnings(self, last: Piece) -> list[str]:
        """What did not go as it should. A last piece has text where a call was cut off."""
        return [*self._reader.warnings, *(["tool_call_unparsed"] if last.text else [])]
