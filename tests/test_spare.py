"""The spare worker: it becomes the next one, is replaced, and leaves nothing behind."""

from pathlib import Path

import psutil
import pytest

from corral.engine.base import RunnerSpec
from corral.engine.llama.launch import launch
from corral.engine.llama.spare import Spare
from corral.errors import EngineDied
from tests.asking import ask, generate, until
from tests.conftest import RunningServer, StartServer, add_model


async def prepared(*, has_room: bool = True) -> Spare:
    spare = Spare(lambda: has_room)
    spare.prepare()
    assert spare._making is not None
    await spare._making
    return spare


async def test_it_becomes_the_worker_of_the_next_model(tmp_path: Path, tiny_gguf: Path) -> None:
    spare = await prepared()
    assert spare._process is not None
    pid = spare._process.pid
    spec = RunnerSpec(model=str(tiny_gguf), num_ctx=512, pool=512)
    engine = await launch(spec, log=tmp_path / "worker.log", stall_timeout=60, spare=spare)
    assert psutil.pid_exists(pid)
    assert await engine.tokenize("hello", add_special=False)
    assert spare.take() is None
    await engine.close()
    assert not psutil.pid_exists(pid)
    assert "loaded" in (tmp_path / "worker.log").read_text()


async def test_what_goes_wrong_in_it_is_said_as_ever(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    spec = RunnerSpec(model=str(broken), num_ctx=512, pool=512)
    with pytest.raises(EngineDied, match="llama-server process has terminated: "):
        await launch(spec, log=tmp_path / "worker.log", stall_timeout=60, spare=await prepared())


async def test_one_that_died_is_not_used(tmp_path: Path) -> None:
    spare = await prepared()
    assert spare._process is not None
    spare._process.kill()
    await spare._process.wait()
    assert spare.take() is None
    spare.prepare()
    await spare.close()


async def test_there_is_none_where_memory_is_short() -> None:
    spare = await prepared(has_room=False)
    assert spare.take() is None


async def test_closing_ends_it() -> None:
    spare = await prepared()
    assert spare._process is not None
    pid = spare._process.pid
    await spare.close()
    assert not psutil.pid_exists(pid)


def spares(server: RunningServer) -> list[int]:
    return [child.pid for child in psutil.Process(server.process.pid).children() if "--spare" in child.cmdline()]


def test_a_server_has_one_and_makes_another(start_server: StartServer, tmp_path: Path, tiny_gguf: Path) -> None:
    add_model(tmp_path / "home" / ".ollama" / "models", "tiny", tiny_gguf)
    server = start_server(tmp_path / "home", CORRAL_SPARE_WORKER="1")
    until(lambda: len(spares(server)) == 1)
    first = spares(server)
    assert generate(server, "a", "tiny", options={"num_predict": 1}).status == 200
    until(lambda: len(spares(server)) == 2)  # the worker keeps its command line
    assert set(first) < set(spares(server))
    every = spares(server)
    server.process.terminate()
    server.process.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in every))


def test_a_setting_leaves_it_out(start_server: StartServer) -> None:
    server = start_server(CORRAL_SPARE_WORKER="0")
    assert ask(server, "GET", "/").status == 200
    assert spares(server) == []
