"""The texts of several requests take turns in a model that embeds: by slots and tokens, in parts."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from corral import names
from corral.engine.base import Embeddings, Engine, RunnerSpec
from corral.inference.embedding import Vectors, embed_inputs
from corral.inference.metrics import RequestMetrics
from corral.inference.parts import PART_TEXTS
from corral.messages import EmbedRequest
from corral.models.model import Model, Models
from corral.options import Options
from corral.serving.runner import Runner
from corral.store import Store
from corral.telemetry import Series
from tests.conftest import add_model
from tests.stub_engines import turn_the_loop
from tests.tiny_models import tiny_bert

SLOTS = 4
TEXT = "x" * 98
"""A text of at most a hundred tokens."""


class StepwiseEngine:
    """Embeds a part when the test says so; each byte of a text is a token."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = []
        self._steps: list[asyncio.Event] = []

    async def embed(self, inputs: Sequence[str]) -> Embeddings:
        done = asyncio.Event()
        self.parts.append(list(inputs))
        self._steps.append(done)
        await done.wait()
        return Embeddings([[float(len(text)), 1.0] for text in inputs], sum(map(len, inputs)))

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return [1] * add_special + list(text.encode())

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode()

    async def step(self) -> None:
        """Has the part that was begun first embedded."""
        self._steps.pop(0).set()
        await turn_the_loop()

    async def finish(self, *requests: "asyncio.Task[Vectors]") -> list[Vectors]:
        while not all(request.done() for request in requests):
            if self._steps:
                await self.step()
            else:
                await asyncio.sleep(0)  # a thread finishes vectors
        return [request.result() for request in requests]


@pytest.fixture
async def model(tmp_path: Path) -> Model:
    add_model(tmp_path / "models", "bert", tiny_bert(tmp_path / "bert.gguf", context_length=1000))
    return await Models(Store(tmp_path / "models")).load(names.parse("bert"))


@pytest.fixture
async def engine() -> StepwiseEngine:
    return StepwiseEngine()


def runner_of(engine: StepwiseEngine, *, pool: int = 4000) -> Runner:
    spec = RunnerSpec(model="m", mode="embed", num_ctx=1000, text_batch=1000, slots=SLOTS, pool=pool)
    runner = Runner(spec, "m", 300, spec.num_ctx)
    runner.engine = cast(Engine, engine)
    return runner


def asked(runner: Runner, model: Model, texts: Sequence[str]) -> "asyncio.Task[Vectors]":
    metrics = RequestMetrics(Series())
    metrics.got_runner(runner)
    request = EmbedRequest(model="m", inputs=tuple(texts))
    return asyncio.ensure_future(embed_inputs(runner, model, request, texts, Options(), metrics))


async def test_a_second_request_is_served_between_the_parts_of_a_large_one(
    engine: StepwiseEngine, model: Model
) -> None:
    runner = runner_of(engine)
    large = asked(runner, model, [TEXT] * 40)
    await turn_the_loop()
    small = asked(runner, model, ["small"])
    await turn_the_loop()
    assert [len(part) for part in engine.parts] == [10]
    await engine.step()
    assert engine.parts[1] == ["small"]
    [first, second] = await engine.finish(large, small)
    assert [len(part) for part in engine.parts if part != ["small"]] == [10] * 4
    assert (len(first.vectors), first.tokens, len(second.vectors)) == (40, 40 * 98, 1)
    assert (runner.pool.active, runner.pool.reserved) == (0, 0)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("x", [PART_TEXTS] * 3 + [200 - 3 * PART_TEXTS]),  # short ones: many at once
        (TEXT, [10] * 20),  # as many as a batch holds
        ("x" * 900, [SLOTS] * 50),  # one in each slot
    ],
)
async def test_a_part_has_a_text_for_each_slot_or_as_many_as_a_batch_holds(
    engine: StepwiseEngine, model: Model, text: str, sizes: list[int]
) -> None:
    request = asked(runner_of(engine), model, [text] * 200)
    await engine.finish(request)
    assert [len(part) for part in engine.parts] == sizes


async def test_a_short_request_needs_only_the_slots_of_its_texts(engine: StepwiseEngine, model: Model) -> None:
    runner = runner_of(engine)
    requests = [asked(runner, model, ["one", "two"]) for _ in range(3)]
    await turn_the_loop()
    assert (len(engine.parts), runner.pool.active, runner.pool.waiting) == (2, 4, 1)
    await engine.finish(*requests)
    assert runner.pool.active == 0


async def test_a_text_that_is_cut_reserves_no_more_than_it_may_have(engine: StepwiseEngine, model: Model) -> None:
    runner = runner_of(engine, pool=4000)
    request = asked(runner, model, ["x" * 100_000, "short"])
    await turn_the_loop()
    assert runner.pool.reserved == 1000 + len("short") + 2
    [found] = await engine.finish(request)
    assert (len(engine.parts[0][0]), found.truncated_tokens) == (998, 100_000 - 998)


async def test_a_request_that_leaves_gives_its_room_back(engine: StepwiseEngine, model: Model) -> None:
    runner = runner_of(engine)
    large, waiting = asked(runner, model, [TEXT] * 40), asked(runner, model, [TEXT] * 2)
    await turn_the_loop()
    large.cancel()
    await turn_the_loop()
    assert engine.parts[1:] == [[TEXT] * 2]
    waiting.cancel()
    await asyncio.wait({large, waiting})
    assert (runner.pool.active, runner.pool.reserved, runner.pool.waiting) == (0, 0, 0)
