"""Texts → vectors on a runner: lengths checked, texts cut, vectors normalised. Source: spec api §10.

Many texts are computed in parts, so that those of other requests get their turn in between.
"""

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from corral.engine.base import Embeddings
from corral.engine.load_options import batches
from corral.errors import BadRequest, ContextExceeded, EngineRefused
from corral.inference.metrics import RequestMetrics
from corral.inference.parts import in_parts
from corral.messages import EmbedRequest
from corral.models.model import Model
from corral.options import Options
from corral.serving.runner import Runner
from corral.serving.spec import MIN_CONTEXT
from corral.upstreams import client as upstream

_TOO_LONG = "input exceeds maximum context length and cannot be truncated further"


class Vectors(Struct, frozen=True, kw_only=True):
    """One vector a text; `tokens` of all texts together, special ones included. Durations in nanoseconds."""

    vectors: list[list[float]] = []
    tokens: int = 0
    truncated_tokens: int = 0
    """Tokens of all texts that were left out because the model takes no more of one."""
    total_duration: int = 0
    load_duration: int = 0


class _Text(NamedTuple):
    """A text of a request; `place` counts from 1, as errors name it."""

    place: int
    text: str

    @property
    def most_tokens(self) -> int:
        """A text has no more tokens than bytes, and two special ones."""
        return len(self.text.encode()) + 2


async def embed_inputs(
    runner: Runner,
    model: Model,
    request: EmbedRequest,
    inputs: Sequence[str],
    chosen: Options,
    metrics: RequestMetrics,
    *,
    normalize: bool = True,
) -> Vectors:
    """The vectors of `inputs`, the request's texts; `ContextExceeded` for one that is too long and may not be cut.

    `BadRequest` for an empty text that the model makes no vector of.
    """
    if not inputs:
        return Vectors()
    texts = [_Text(place, text) for place, text in enumerate(inputs, 1)]
    embedder = _Embedder(runner, model, chosen, request.truncate)
    await embedder.check(texts)
    vectors: list[list[float]] = []
    tokens = truncated = 0
    with contextlib.ExitStack() as served:
        for part in in_parts(texts, runner):
            async with runner.pool.admit(embedder.reserved(part), len(part)):
                if not vectors:
                    served.enter_context(metrics.serving())
                found, cut = await embedder.embed(part)
            vectors += await asyncio.to_thread(_all_finished, found.vectors, request.dimensions, normalize)
            tokens, truncated = tokens + found.tokens, truncated + cut
    metrics.embedded(tokens, truncated)
    return Vectors(vectors=vectors, tokens=tokens, truncated_tokens=truncated)


class _Embedder:
    """Embeds the texts of one request, each within the limits of model, request and runner."""

    def __init__(self, runner: Runner, model: Model, chosen: Options, truncate: bool) -> None:
        self._runner = runner
        self._engine = runner.engine
        self._model = model
        self._truncate = truncate
        self._wants_least_context = chosen.num_ctx is not None and chosen.num_ctx <= 0
        lengths = (chosen.num_ctx or 0, model.gguf.context_length or 0, runner.spec.num_ctx)
        self._context = min(length for length in lengths if length > 0)
        _, self._batch = batches(runner.spec)
        self._limit = min(self._context, self._batch)

    async def check(self, texts: Sequence[_Text]) -> None:
        """`BadRequest` for what can be known to fail before anything is computed."""
        first = next((text for text in texts if not text.text), None)
        if first is not None and not await self._engine.tokenize("", add_special=True):
            raise _empty(first)

    def reserved(self, part: Sequence[_Text]) -> int:
        """Tokens of the pool that a part may come to need."""
        return sum(min(text.most_tokens, self._limit) for text in part)

    async def embed(self, part: Sequence[_Text]) -> tuple[Embeddings, int]:
        """One vector a text, and how many tokens of the texts were cut off."""
        if self._wants_least_context:
            await self._refuse_beyond_least_context([text.text for text in part])
        fitting = await asyncio.gather(*map(self._fitting, part))
        texts, truncated = [text for text, _ in fitting], sum(cut for _, cut in fitting)
        try:
            return await self._engine.embed(texts), truncated
        except EngineRefused:
            await self._refuse_without_tokens(part)
            if not self._truncate:
                raise
            shortened, cut = await self._cut_to_batch(texts)
            if not cut:
                raise
        return await self._engine.embed(shortened), truncated + cut

    async def _fitting(self, text: _Text) -> tuple[str, int]:
        """The text, cut where it is longer than the limit with its special tokens, and how many were cut off."""
        if text.most_tokens <= self._limit:
            return text.text, 0
        tokens = await self._engine.tokenize(text.text)
        ends = _missing_ends(tokens, self._model)
        room = self._limit - ends
        if len(tokens) <= room:
            return text.text, 0
        if not self._truncate:
            raise self._exceeds(text, len(tokens) + ends)
        if room <= 0:
            raise ContextExceeded("input after truncation exceeds maximum context length", limit=self._limit)
        return await self._engine.detokenize(tokens[:room]), len(tokens) - room

    def _exceeds(self, text: _Text, tokens: int) -> ContextExceeded:
        """Why a text is too long: for the context, or only for what is computed at once."""
        if tokens > self._context:
            return ContextExceeded("the input length exceeds the context length", tokens=tokens, limit=self._context)
        sentence = (
            f"input {text.place} has {tokens} tokens, which fit the context but not the batch of {self._batch}, "
            "and a text is embedded in one batch; "
        )
        if self._runner.spec.num_batch is None:
            sentence += 'memory did not suffice for more, and the option "num_batch" sets another size'
        else:
            sentence += 'the option "num_batch" set its size'
        return ContextExceeded(sentence, tokens=tokens, limit=self._batch)

    async def _refuse_beyond_least_context(self, texts: Sequence[str]) -> None:
        """A context of no tokens means the least there is, and nothing is cut down to that (spec api §10.1)."""
        for tokens in await self._tokenized(texts):
            if len(tokens) + _missing_ends(tokens, self._model) > MIN_CONTEXT:
                raise ContextExceeded(_TOO_LONG)

    async def _refuse_without_tokens(self, part: Sequence[_Text]) -> None:
        """`BadRequest` for the first text that the tokenizer leaves nothing of, which the engine makes no vector of."""
        counted = await asyncio.gather(*(self._engine.tokenize(text.text, add_special=True) for text in part))
        for text, tokens in zip(part, counted, strict=True):
            if not tokens:
                raise _empty(text)

    async def _cut_to_batch(self, texts: Sequence[str]) -> tuple[list[str], int]:
        """The texts, each cut to what one batch takes with its special tokens, and how many were cut off."""
        room = self._batch - 2
        counted = await self._tokenized(texts)
        cut = sum(max(0, len(tokens) - room) for tokens in counted)
        if cut and room <= 0:
            raise ContextExceeded(_TOO_LONG)
        shortened = [
            await self._engine.detokenize(tokens[:room]) if len(tokens) > room else text
            for text, tokens in zip(texts, counted, strict=True)
        ]
        return shortened, cut

    async def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        return await asyncio.gather(*map(self._engine.tokenize, texts))


async def finished_elsewhere(
    request: EmbedRequest, metrics: RequestMetrics, found: upstream.Vectors, *, normalize: bool
) -> Vectors:
    """The vectors that another server has made, as ours are."""
    vectors = await asyncio.to_thread(_all_finished, found.vectors, request.dimensions, normalize)
    metrics.embedded(found.tokens, 0)
    return Vectors(vectors=vectors, tokens=found.tokens)


def _empty(text: _Text) -> BadRequest:
    return BadRequest(f"input {text.place} is empty, and the model makes no vector of an empty text")


def _missing_ends(tokens: Sequence[int], model: Model) -> int:
    """How many special tokens the engine will put around a text: those it does not begin and end with already."""
    ends = ((tokens[:1], model.gguf.bos_token_id), (tokens[-1:], model.gguf.eos_token_id))
    return sum([*end] != [number or 0] for end, number in ends)


def _all_finished(vectors: Sequence[Sequence[float]], dimensions: int, normalize: bool) -> list[list[float]]:
    return [_finished(vector, dimensions, normalize) for vector in vectors]


def _finished(vector: Sequence[float], dimensions: int, normalize: bool) -> list[float]:
    if not all(map(math.isfinite, vector)):
        raise BadRequest("embedding contains NaN or Inf values")
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    if not normalize:
        return list(vector)
    norm = max(math.sqrt(math.fsum(x * x for x in vector)), 1e-12)
    return [x / norm for x in vector]
