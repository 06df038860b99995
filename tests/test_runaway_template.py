"""A chat template that hangs or grows: its own request fails, others on the worker go on, and the model is replaced."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from corral.engine.base import CompletionRequest, EngineChat, LoadProgress, RunnerSpec
from corral.engine.llama import process
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.engine.llama.process import RunawayTemplateError, WorkerProcess
from corral.errors import EngineDied, EngineError
from corral.machine.memory import GIB, Memory
from corral.messages import Message
from corral.serving.decisions import SchedulerLimits
from corral.serving.scheduler import Scheduler
from tests.conftest import FAKE_ENGINE
from tests.engines import engines, open_to, tell

SPEC = RunnerSpec(model="model.gguf", num_ctx=2048, slots=4, pool=8192)
RUNAWAY = "the model's chat template takes too long or too much memory"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder for the worker; and rendering is judged after a moment instead of seconds."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(process, "RENDER_CHECK", 0.05)
    monkeypatch.setattr(process, "RENDER_TIMEOUT", 0.3)
    monkeypatch.setattr(process, "TICK", 0.05)
    return tmp_path


def chat(content: str) -> EngineChat:
    return EngineChat(messages=(Message.of("user", content),), max_tokens=8)


def held(tokens: int) -> CompletionRequest:
    """A request that says one token and the rest when the file `go` appears."""
    return CompletionRequest(prompt=f"!hold=1 !tokens={tokens}", max_tokens=tokens)


async def start(home: Path) -> LlamaEngine:
    return await launch(SPEC, log=home / "worker.log", stall_timeout=20, program=str(FAKE_ENGINE), cage=open_to(home))


@pytest.fixture
async def engine(home: Path) -> AsyncGenerator[LlamaEngine, None]:
    engine = await start(home)
    yield engine
    await engine.close()


async def test_a_rendering_that_hangs_fails_alone_while_another_request_streams(
    home: Path, engine: LlamaEngine
) -> None:
    retiring = asyncio.ensure_future(engine.retiring())
    async with aclosing(engine.complete(held(3))) as pieces:
        said = [(await anext(pieces)).text]
        with pytest.raises(RunawayTemplateError, match=f"^{RUNAWAY}$"):
            await engine.render(chat("!render-hang"))
        assert await retiring == RUNAWAY
        (home / "go").touch()
        said += [piece.text async for piece in pieces]
    assert "".join(said) == "w1 w2 w3 "
    assert await engine.healthy()
    with pytest.raises(EngineError, match=f"^{RUNAWAY}$"):
        await engine.render(chat("hello"))
    await engine.close()
    assert await engine.ended() == "stopped"


async def test_a_rendering_that_grows_fails(home: Path, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "RENDER_TIMEOUT", 1e9)
    monkeypatch.setattr(process, "TEMPLATE_BYTES", 8 << 20)
    with pytest.raises(RunawayTemplateError):
        await engine.render(chat("!render-grow=32"))


async def test_a_rendering_that_takes_its_time_is_waited_for(home: Path, engine: LlamaEngine) -> None:
    rendering = asyncio.ensure_future(engine.render(chat("hello !render-grow=1")))
    await asyncio.to_thread(engines(home)[0].wait, "rendering")
    (home / "rendered").touch()
    assert await rendering == "<user>hello !render-grow=1<assistant>"


async def until_healthy(session: aiohttp.ClientSession) -> None:
    while True:
        try:
            async with session.get("/health") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.01)


async def test_growth_while_others_compute_may_be_their_prompt_cache(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as the template's only beyond what the prompt cache may take."""
    monkeypatch.setattr(process, "RENDER_TIMEOUT", 1e9)
    monkeypatch.setattr(process, "TEMPLATE_BYTES", 8 << 20)
    log = home / "worker.log"
    worker = await WorkerProcess.start(SPEC, log=log, program=str(FAKE_ENGINE), cage=open_to(home), cache_ram_mib=64)
    await worker.ready(20)
    checks = 0

    def others() -> bool:
        nonlocal checks
        checks += any(event["event"] == "rendering" for event in engines(home)[0].events)
        if checks == 3:
            (home / "rendered").touch()
        return True

    async def healthy() -> bool:
        return True

    headers = {"Authorization": f"Bearer {worker.key}"}
    async with aiohttp.ClientSession(worker.url, headers=headers) as session:
        await until_healthy(session)
        body = {"messages": [{"role": "user", "content": "!render-grow=32"}]}
        asked = asyncio.ensure_future(session.post("/apply-template", data=json.dumps(body)))
        await worker.rendering(asked, healthy, others)
        assert (await asked.result().json())["prompt"].startswith("<user>")
    assert checks >= 3
    await worker.stop()


async def test_no_error_of_a_rendering_is_left_unretrieved(home: Path, engine: LlamaEngine) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    with pytest.raises(RunawayTemplateError):
        await engine.render(chat("!render-hang"))
    cancelled = asyncio.ensure_future(engine.render(chat("!render-hang")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    await engine.close()
    for _ in range(10):
        gc.collect()
        await asyncio.sleep(0)
    assert complaints == []


async def test_a_model_whose_template_ran_away_is_replaced_after_its_other_requests(home: Path) -> None:
    started: list[LlamaEngine] = []

    async def load(spec: RunnerSpec, label: str, progress: LoadProgress) -> LlamaEngine:
        started.append(await start(home))
        return started[-1]

    scheduler = Scheduler(load, lambda: Memory(64 * GIB, 32 * GIB), SchedulerLimits())
    said, streams = list[str](), asyncio.Event()

    async def stream() -> None:
        async with scheduler.runner(SPEC, "model") as runner, aclosing(runner.engine.complete(held(3))) as pieces:
            said.append((await anext(pieces)).text)
            streams.set()
            said.extend([piece.text async for piece in pieces])

    async def hang() -> None:
        async with scheduler.runner(SPEC, "model") as runner:
            await runner.engine.render(chat("!render-hang"))

    async def another() -> str:
        async with scheduler.runner(SPEC, "model") as runner:
            return await runner.engine.render(chat("hello"))

    streaming = asyncio.ensure_future(stream())
    await streams.wait()
    with pytest.raises(EngineError, match=f"^{RUNAWAY}$"):
        await hang()
    waiting = asyncio.ensure_future(another())
    await asyncio.sleep(0)
    assert scheduler.queued == 1
    assert len(started) == 1, "no new work is sent to the worker"
    assert [engine.alive for engine in engines(home)] == [True]
    (home / "go").touch()
    await streaming
    assert "".join(said) == "w1 w2 w3 "
    assert await waiting == "<user>hello<assistant>"
    assert [engine.alive for engine in engines(home)] == [False, True]
    await scheduler.close()


LOADED = "srv    load_model: initializing, n_slots = 4\n"


async def test_a_template_that_is_tried_at_load_is_judged_whatever_is_printed_after_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker, which does not try it, takes the place of the one that is lost in it."""
    monkeypatch.setattr(process, "TEMPLATE_SECONDS", 0.2)
    tell(home, own_template=True, spins_after=LOADED + "more\n" * 1000)
    engine = await start(home)
    assert engine.template_error == RUNAWAY
    lost, serving = engines(home)
    assert (lost.alive, serving.pid) == (False, engine.pid)
    with pytest.raises(EngineError, match=f"^{RUNAWAY}$"):
        await engine.render(chat("hello"))
    with pytest.raises(EngineError, match=f"^{RUNAWAY}$"):
        await anext(engine.chat(chat("hello")))
    async with aclosing(engine.complete(CompletionRequest(prompt="!tokens=2", max_tokens=2))) as pieces:
        assert "".join([piece.text async for piece in pieces]) == "w1 w2 "
    await engine.close()


async def test_a_template_that_was_tried_before_is_not_tried_again(home: Path) -> None:
    tell(home, own_template=True, spins_after=LOADED)
    engine = await launch(
        SPEC,
        log=home / "worker.log",
        stall_timeout=20,
        program=str(FAKE_ENGINE),
        cage=open_to(home),
        template_error=RUNAWAY,
    )
    assert [fake.pid for fake in engines(home)] == [engine.pid]
    with pytest.raises(EngineError, match=f"^{RUNAWAY}$"):
        await engine.render(chat("hello"))
    await engine.close()


@pytest.mark.parametrize("spec", [SPEC, msgspec.structs.replace(SPEC, own_template=False)])
async def test_a_worker_that_ends_without_its_template_is_not_started_a_third_time(
    home: Path, spec: RunnerSpec
) -> None:
    tell(home, fails=LOADED + "error: no slot today")
    with pytest.raises(EngineDied, match=r"^llama-server process has terminated: exit status 1: error: no slot today$"):
        await launch(spec, log=home / "worker.log", stall_timeout=20, program=str(FAKE_ENGINE), cage=open_to(home))
    assert len(engines(home)) == (2 if spec.own_template else 1)
