"""Documents ranked by a query on a runner: lengths checked, documents cut, scores between 0 and 1.

Query and document are computed together, so each pair has to fit. Many are computed in parts, so that those of other
requests get their turn in between. Knows no order: scores come as the documents do. Source: spec api §16.1.
"""

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from corral.engine.base import Ranking
from corral.engine.load_options import batches
from corral.errors import BadRequest, ContextExceeded, EngineRefused, Unsupported
from corral.inference.metrics import RequestMetrics
from corral.inference.parts import in_parts
from corral.messages import RankRequest
from corral.models.model import Model
from corral.options import Options
from corral.serving.runner import Runner

MAX_DOCUMENTS = 10_000
"""Documents that one request may have."""

SPECIAL_TOKENS = 8
"""Room for what stands around query and document: special tokens, and one where a text was cut within a word."""

_GIVE_PROBABILITIES = ("qwen3",)
"""Beginnings of architectures for which the engine itself makes a probability of the head's outputs."""


class Scores(Struct, frozen=True, kw_only=True):
    """One score a document, between 0 and 1; `tokens` of all pairs together. Durations in nanoseconds."""

    scores: list[float]
    tokens: int = 0
    truncated_tokens: int = 0
    """Tokens of all documents that were left out because the model takes no more of one."""
    total_duration: int = 0
    load_duration: int = 0


def check_rank(model: Model, request: RankRequest) -> None:
    """`Unsupported` for a model that ranks nothing; `BadRequest` without query or documents, and for too many."""
    if not model.can_rank:
        raise Unsupported(request.model, "reranking", model.name.full)
    if not request.query:
        raise BadRequest("query must not be empty")
    if not request.documents:
        raise BadRequest("documents must not be empty")
    if len(request.documents) > MAX_DOCUMENTS:
        raise BadRequest(
            f"{len(request.documents)} documents are more than the {MAX_DOCUMENTS} that are ranked at once"
        )


async def rank_documents(
    runner: Runner, model: Model, request: RankRequest, chosen: Options, metrics: RequestMetrics
) -> Scores:
    """The scores of the request's documents, which `check_rank` has seen.

    `ContextExceeded` for a query that leaves no room for a document, and for a document that is too long and may not be
    cut; it is named by its index, counted from 0 as in the answer.
    """
    ranker = _Ranker(runner, model, request, chosen)
    await ranker.measure()
    pairs = [ranker.pair(place, text) for place, text in enumerate(request.documents)]
    scores: list[float] = []
    tokens = truncated = 0
    with contextlib.ExitStack() as served:
        for part in in_parts(pairs, runner):
            async with runner.pool.admit(sum(pair.most_tokens for pair in part), len(part)):
                if not scores:
                    served.enter_context(metrics.serving())
                found, cut = await ranker.rank(part)
            scores += found.scores
            tokens, truncated = tokens + found.tokens, truncated + cut
    metrics.embedded(tokens, truncated)
    return Scores(scores=ranker.finished(scores), tokens=tokens, truncated_tokens=truncated)


class _Pair(NamedTuple):
    """A document with the query beside it; `most_tokens` of the pool that both may come to need.

    `place` is its index in the request, counted from 0.
    """

    place: int
    text: str
    most_tokens: int


class _Ranker:
    """Ranks the documents of one request, each within the limits of model, request and runner."""

    def __init__(self, runner: Runner, model: Model, request: RankRequest, chosen: Options) -> None:
        self._engine = runner.engine
        self._model = model
        self._truncate = request.truncate
        self._template = model.gguf.rank_template or ""
        self._query = _within_template(request.query) if self._template else request.query
        lengths = (chosen.num_ctx or 0, model.gguf.context_length or 0, runner.spec.num_ctx, batches(runner.spec)[1])
        self._limit = min(length for length in lengths if length > 0)
        self._room = 0

    async def measure(self) -> None:
        """Finds how many tokens of a document fit beside the query; `ContextExceeded` when none do."""
        around = self._template.replace("{query}", "").replace("{document}", "")
        counts = [len(await self._engine.tokenize(text)) for text in (around, self._query) if text]
        self._room = self._limit - sum(counts) - SPECIAL_TOKENS
        if self._room <= 0:
            raise ContextExceeded(
                f"the query has {counts[-1]} tokens, which leaves no room for a document among the {self._limit} that "
                "the model reads at once",
                tokens=counts[-1],
                limit=self._limit,
            )

    def pair(self, place: int, text: str) -> _Pair:
        """A document has no more tokens than bytes."""
        return _Pair(place, text, min(self._limit - self._room + len(text.encode()), self._limit))

    async def rank(self, part: Sequence[_Pair]) -> tuple[Ranking, int]:
        """The raw scores, and how many tokens of the documents were cut off."""
        fitting = await asyncio.gather(*map(self._fitting, part))
        texts, truncated = [text for text, _ in fitting], sum(cut for _, cut in fitting)
        try:
            return await self._engine.rank(self._query, texts), truncated
        except EngineRefused:
            if len(part) == 1:
                raise
        return await self._one_by_one(part, texts), truncated

    def finished(self, scores: Sequence[float]) -> list[float]:
        """Scores between 0 and 1, as clients' thresholds expect them; `BadRequest` for one that is no number."""
        wrong = next((index for index, score in enumerate(scores) if not math.isfinite(score)), None)
        if wrong is not None:
            raise BadRequest(f"the model's score of document {wrong} is not a number")
        if self._model.gguf.architecture.startswith(_GIVE_PROBABILITIES):
            return list(scores)
        return [_sigmoid(score) for score in scores]

    async def _fitting(self, pair: _Pair) -> tuple[str, int]:
        """The document, cut where it is longer than its room, and how many tokens were cut off."""
        if len(pair.text.encode()) <= self._room:
            return pair.text, 0
        tokens = await self._engine.tokenize(pair.text)
        if len(tokens) <= self._room:
            return pair.text, 0
        if not self._truncate:
            raise ContextExceeded(
                f"document {pair.place} has {len(tokens)} tokens, and beside the query {self._room} fit among the "
                f"{self._limit} that the model reads at once",
                tokens=len(tokens),
                limit=self._room,
            )
        return await self._engine.detokenize(tokens[: self._room]), len(tokens) - self._room

    async def _one_by_one(self, part: Sequence[_Pair], texts: Sequence[str]) -> Ranking:
        """The documents of a part that was refused, so that the error names the one that the engine does not take."""
        found = []
        for pair, text in zip(part, texts, strict=True):
            try:
                found.append(await self._engine.rank(self._query, [text]))
            except EngineRefused as error:
                raise EngineRefused(f"document {pair.place}: {error}", code=error.code) from error
        return Ranking([score for one in found for score in one.scores], sum(one.tokens for one in found))


def _within_template(query: str) -> str:
    """The query with a space in what the engine would take for the document's place in the model's template."""
    return query.replace("{document}", "{ document}")


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
