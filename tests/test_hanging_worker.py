"""A worker that hangs with a request in hand: it is given up, its requests fail with the reason, the next is served."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from corral.engine.base import CompletionRequest, EngineChat, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.errors import EngineDied
from corral.messages import Message
from tests.asking import InBackground, generate, until
from tests.conftest import FAKE_ENGINE, StartServer, add_model
from tests.engines import engines, open_to

SPEC = RunnerSpec(model="model.gguf", num_ctx=2048, slots=4, pool=8192)


async def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = 2) -> LlamaEngine:
    """An engine that is given up after so many seconds."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("corral.engine.llama.launch.HANG_TIMEOUT", seconds)
    return await launch(
        SPEC, log=tmp_path / "worker.log", stall_timeout=20, program=str(FAKE_ENGINE), cage=open_to(tmp_path)
    )


@pytest.mark.parametrize("when", ["before", "amid"])
async def test_a_stopped_worker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    engine = await started(tmp_path, monkeypatch)
    if when == "before":
        os.kill(engine.pid, signal.SIGSTOP)
    pieces = engine.complete(CompletionRequest(prompt="!tokens=5 !hold=2", max_tokens=5))
    if when == "amid":
        assert [(await anext(pieces)).text for _ in range(2)] == ["w1 ", "w2 "]
        os.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(EngineDied, match="it did not answer for 2 seconds"):
        await anext(pieces)
    assert await engine.ended() == "it did not answer for 2 seconds"
    await engine.close()


async def test_so_is_one_that_is_asked_for_something_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await started(tmp_path, monkeypatch)
    os.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(EngineDied, match="it did not answer"):
        await engine.tokenize("hello")
    await engine.close()


async def test_a_worker_that_answers_pings_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that reads a long prompt does, however long that takes."""
    engine = await started(tmp_path, monkeypatch, 0.3)
    waiting = asyncio.ensure_future(anext(engine.complete(CompletionRequest(prompt="!hang", max_tokens=5))))
    chat = EngineChat(messages=(Message.of("user", "hello"),), max_tokens=3)
    for _ in range(8):
        assert "".join([piece.text async for piece in engine.chat(chat)]) == "w1 w2 w3 "
        await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    await engine.close()


def test_the_next_request_is_served_by_a_new_worker(start_server: StartServer, tmp_path: Path, tiny_gguf: Path) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_LOAD_TIMEOUT="3s")
    assert generate(server, "hello").status == 200
    os.kill(engines(home)[0].pid, signal.SIGSTOP)
    failed = InBackground(lambda: generate(server, "hello")).result()
    assert failed.status == 500
    assert "it did not answer for 3 seconds" in failed.error
    assert generate(server, "hello").json["response"] == "w1 w2 w3 "
    until(lambda: len(engines(home)) == 2)
