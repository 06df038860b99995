"""Texts → vectors on a runner: lengths checked, texts cut, vectors normalised. Source: spec api §10."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from msgspec import Struct

from corral.errors import BadRequest, EngineRefused
from corral.messages import EmbedRequest
from corral.models.model import Model
from corral.options import Options
from corral.serving.scheduler import Runner
from corral.serving.spec import MIN_CONTEXT

_TOO_LONG = "input exceeds maximum context length and cannot be truncated further"


class Vectors(Struct, frozen=True, kw_only=True):
    """One vector a text; `tokens` of all texts together, special ones included. Durations in nanoseconds."""

    vectors: list[list[float]] = []
    tokens: int = 0
    truncated_tokens: int = 0
    """Tokens of all texts that were left out because the model takes no more of one."""
    total_duration: int = 0
    load_duration: int = 0


async def embed_inputs(
    runner: Runner,
    model: Model,
    request: EmbedRequest,
    chosen: Options,
    serving: Callable[[], AbstractContextManager[None]],
    *,
    normalize: bool = True,
) -> Vectors:
    """The texts of a request in one call of the engine; `BadRequest` for one that is too long and may not be cut.

    `serving` is held from when there is room for them.
    """
    if not request.inputs:
        return Vectors()
    limit = min(_limit(model, chosen.num_ctx), _batch(runner))
    fitting = [await _fitting(runner, model, text, limit, request.truncate) for text in request.inputs]
    texts, truncated = [text for text, _ in fitting], sum(cut for _, cut in fitting)
    if chosen.num_ctx is not None and chosen.num_ctx <= 0:
        await _refuse_beyond_least_context(runner, model, texts)
    async with runner.pool.admit(sum(len(text.encode()) + 2 for text in texts)):
        with serving():
            try:
                found = await runner.engine.embed(texts)
            except EngineRefused:
                if not request.truncate:
                    raise
                texts, cut = await _cut_to_batch(runner, texts)
                truncated += cut
                found = await runner.engine.embed(texts)
    vectors = await asyncio.to_thread(
        lambda: [_finished(vector, request.dimensions, normalize) for vector in found.vectors]
    )
    return Vectors(vectors=vectors, tokens=found.tokens, truncated_tokens=truncated)


def _limit(model: Model, num_ctx: int | None) -> int:
    trained = model.gguf.context_length or 0
    given = [length for length in (num_ctx or 0, trained) if length > 0]
    return min(given) if given else 1 << 30


def _batch(runner: Runner) -> int:
    """Most tokens of one text: an embedding is computed in one batch."""
    return min(runner.spec.num_batch or 2048, runner.spec.num_ctx)


async def _fitting(runner: Runner, model: Model, text: str, limit: int, truncate: bool) -> tuple[str, int]:
    """The text, cut where it is longer than `limit` tokens with its special ones, and how many were cut off."""
    if len(text.encode()) + 2 <= limit:
        return text, 0
    tokens = await runner.engine.tokenize(text)
    room = limit - _missing_ends(tokens, model)
    if len(tokens) <= room:
        return text, 0
    if not truncate:
        raise BadRequest("the input length exceeds the context length")
    if room <= 0:
        raise BadRequest("input after truncation exceeds maximum context length")
    return await runner.engine.detokenize(tokens[:room]), len(tokens) - room


def _missing_ends(tokens: Sequence[int], model: Model) -> int:
    """How many special tokens the engine will put around a text: those it does not begin and end with already."""
    ends = ((tokens[:1], model.gguf.bos_token_id), (tokens[-1:], model.gguf.eos_token_id))
    return sum([*end] != [number or 0] for end, number in ends)


async def _refuse_beyond_least_context(runner: Runner, model: Model, texts: Sequence[str]) -> None:
    """A context of no tokens means the least there is, and nothing is cut down to that (spec api §10.1)."""
    for text in texts:
        tokens = await runner.engine.tokenize(text)
        if len(tokens) + _missing_ends(tokens, model) > MIN_CONTEXT:
            raise BadRequest(_TOO_LONG)


async def _cut_to_batch(runner: Runner, texts: Sequence[str]) -> tuple[list[str], int]:
    """The texts, each cut to what the engine takes in one batch with its special tokens, and how many were cut off."""
    room = _batch(runner) - 2
    tokens = [await runner.engine.tokenize(text) for text in texts]
    cut = sum(max(0, len(found) - room) for found in tokens)
    if room <= 0 or not cut:
        raise BadRequest(_TOO_LONG)
    shortened = [
        await runner.engine.detokenize(found[:room]) if len(found) > room else text
        for text, found in zip(texts, tokens, strict=True)
    ]
    return shortened, cut


def _finished(vector: Sequence[float], dimensions: int, normalize: bool) -> list[float]:
    if not all(map(math.isfinite, vector)):
        raise BadRequest("embedding contains NaN or Inf values")
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    if not normalize:
        return list(vector)
    norm = max(math.sqrt(math.fsum(x * x for x in vector)), 1e-12)
    return [x / norm for x in vector]
