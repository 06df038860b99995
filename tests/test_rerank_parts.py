"""The documents of several requests take turns in a model that ranks; what its head says becomes a score."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from corral import names
from corral.engine.base import Engine, Ranking, RunnerSpec
from corral.errors import BadRequest
from corral.inference.metrics import RequestMetrics
from corral.inference.rank import Scores, rank_documents
from corral.messages import RankRequest
from corral.models.model import Model, Models
from corral.options import Options
from corral.serving.runner import Runner
from corral.store import Store
from corral.telemetry import Series
from tests.conftest import add_model
from tests.gguf_bytes import header_of
from tests.stub_engines import turn_the_loop
from tests.tiny_models import tiny_llama, tiny_reranker


class StepwiseEngine:
    """Ranks a part when the test says so; each byte of a text is a token, and a document says its score."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = []
        self._steps: list[asyncio.Event] = []

    async def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        done = asyncio.Event()
        self.parts.append(list(documents))
        self._steps.append(done)
        await done.wait()
        return Ranking([float(text) for text in documents], sum(len(query) + len(text) + 3 for text in documents))

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return list(text.encode())

    async def finish(self, *requests: "asyncio.Task[Scores]") -> list[Scores]:
        while not all(request.done() for request in requests):
            if self._steps:
                self._steps.pop(0).set()
            await turn_the_loop()
        return [request.result() for request in requests]


@pytest.fixture
async def model(tmp_path: Path) -> Model:
    add_model(tmp_path / "models", "reranker", tiny_reranker(tmp_path / "reranker.gguf", context_length=1000))
    return await Models(Store(tmp_path / "models")).load(names.parse("reranker"))


@pytest.fixture
async def engine() -> StepwiseEngine:
    return StepwiseEngine()


def runner_of(engine: StepwiseEngine) -> Runner:
    spec = RunnerSpec(model="m", mode="rank", num_ctx=1000, text_batch=1000, slots=4, pool=4000)
    runner = Runner(spec, "m", 300, spec.num_ctx)
    runner.engine = cast(Engine, engine)
    return runner


def asked(runner: Runner, model: Model, documents: Sequence[str]) -> "asyncio.Task[Scores]":
    metrics = RequestMetrics(Series())
    metrics.got_runner(runner)
    request = RankRequest(model="m", query="q" * 42, documents=tuple(documents))
    return asyncio.ensure_future(rank_documents(runner, model, request, Options(), metrics))


async def test_a_second_request_is_served_between_the_parts_of_a_large_one(
    engine: StepwiseEngine, model: Model
) -> None:
    """A pair takes a hundred tokens at most: a query of 42, room for 8 special ones, and a document of 50."""
    runner = runner_of(engine)
    large = asked(runner, model, ["0".rjust(50)] * 40)
    await turn_the_loop()
    small = asked(runner, model, ["0"])
    await turn_the_loop()
    assert [len(part) for part in engine.parts] == [10]
    [first, second] = await engine.finish(large, small)
    assert engine.parts[1] == ["0"]
    assert [len(part) for part in engine.parts] == [10, 1, 10, 10, 10]
    assert (first.tokens, len(first.scores), second.tokens) == (40 * (42 + 50 + 3), 40, 42 + 1 + 3)
    assert (runner.pool.active, runner.pool.reserved) == (0, 0)


async def test_a_score_is_between_0_and_1_whatever_the_head_says(engine: StepwiseEngine, model: Model) -> None:
    [found] = await engine.finish(asked(runner_of(engine), model, ["0", "1e9", "-1e9", "2", "-2"]))
    assert found.scores == pytest.approx([0.5, 1, 0, 0.8807970779778823, 0.11920292202211755])


async def test_a_probability_of_the_engine_stays_as_it_is(engine: StepwiseEngine, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "qwen.gguf")
    header = header_of(path)
    keys = [
        (str(key).replace("llama.", "qwen3."), kind, "qwen3" if key == "general.architecture" else value)
        for key, kind, value in header.keys
    ]
    path.write_bytes(replace(header, keys=keys).encode())
    add_model(tmp_path / "models", "qwen", path)
    model = await Models(Store(tmp_path / "models")).load(names.parse("qwen"))
    [found] = await engine.finish(asked(runner_of(engine), model, ["0", "0.25", "1"]))
    assert found.scores == [0, 0.25, 1]


async def test_a_score_that_is_no_number_names_its_document(engine: StepwiseEngine, model: Model) -> None:
    with pytest.raises(BadRequest, match=r"^the model's score of document 1 is not a number$"):
        await engine.finish(asked(runner_of(engine), model, ["0", "nan"]))
