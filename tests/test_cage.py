"""What processes that open models may still do: tried in real workers, in another program and in a job."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from corral import cage
from corral.cage import Cage, Needs, Support, places
from corral.doctor.cage import judged
from corral.engine.base import CompletionRequest, RunnerSpec
from corral.engine.llama.launch import launch
from corral.engine.llama.spare import Spare
from corral.errors import ConfigError, EngineDied, InternalError
from corral.job import Job
from tests.conftest import ROOT

ATTEMPTS = Path(__file__).with_name("cage_attempts.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a cage on Linux only")

INSIDE = """
import corral.cage

def enter(*arguments, shut_in=corral.cage.enter):
    shut_in(*arguments)
    import cage_attempts
    cage_attempts.report()

corral.cage.enter = enter
"""
"""Has a child of ours try it as soon as it is in its cage."""


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path of children, which then try what they should not be able to do."""
    folder, home, store = tmp_path / "inside", tmp_path / "home", tmp_path / "store"
    for new in (folder, home / ".ssh", store):
        new.mkdir(parents=True)
    (home / ".ssh" / "key").write_text("secret")
    (store / "other").write_text("another model")
    shutil.copy(ATTEMPTS, folder)
    (folder / "sitecustomize.py").write_text(INSIDE)
    for name in ("HF_TOKEN", "CUDA_API_TOKEN", "LD_SDK_SECRET", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = {"secret": str(home / ".ssh" / "key"), "store": str(store), "port": listener.getsockname()[1]}
        (folder / "attempts.json").write_text(json.dumps(given))
        yield folder


def results(log: Path) -> dict[str, str]:
    line = next(line for line in log.read_text().splitlines() if line.startswith("ATTEMPTS "))
    found: dict[str, str] = json.loads(line.removeprefix("ATTEMPTS "))
    return found


def allowed(found: Mapping[str, str]) -> dict[str, str]:
    """Those attempts that were not refused."""
    return {name: what for name, what in found.items() if what not in ("EACCES", "EPERM")}


def threads(pid: int) -> list[dict[str, str]]:
    """What the kernel says of each thread of a process."""
    files = Path(f"/proc/{pid}/task").glob("*/status")
    return [dict(line.split(":\t", 1) for line in file.read_text().splitlines()) for file in files]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_worker_can_do_nothing_but_answer(waits: bool, inside: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    spare = Spare(lambda: waits)
    spare.prepare()
    assert spare._making is not None
    await spare._making
    model = shutil.copy(tiny_gguf, tmp_path / "store" / "model.gguf")
    spec = RunnerSpec(model=str(model), num_ctx=512, pool=512, num_thread=2)
    engine = await launch(spec, log=tmp_path / "worker.log", stall_timeout=60, spare=spare)
    async with aclosing(engine.complete(CompletionRequest(prompt="hello", max_tokens=3))) as pieces:
        assert [piece async for piece in pieces][-1].finish is not None
    every = threads(engine.pid)
    assert len(every) > 2, "the engine's threads"
    assert {(one["Seccomp"], one["NoNewPrivs"]) for one in every} == {("2", "1")}
    assert {int(one["CapEff"], 16) & ~0b110 for one in every} == {0}
    await engine.close()
    found = results(tmp_path / "worker.log")
    assert len(found) == 26
    assert allowed(found) == {"secrets": ""}


async def test_the_cage_holds_when_the_worker_becomes_another_program(
    inside: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    program = inside / "llama-server"
    only_with_a_model = "import sys\nif '--model' not in sys.argv: sys.exit(1)\n"  # asked for its flags it is outside
    program.write_text(f"#!{sys.executable}\n{only_with_a_model}{(inside / 'cage_attempts.py').read_text()}")
    program.chmod(0o755)
    (inside / "sitecustomize.py").unlink()
    spec = RunnerSpec(model=str(tiny_gguf), num_ctx=512, pool=512)
    with pytest.raises(EngineDied):
        await launch(spec, log=tmp_path / "worker.log", stall_timeout=60, program=str(program))
    found = allowed(results(tmp_path / "worker.log"))
    assert found == {"secrets": "", "start a program": "done", "become a program": "ENOENT", "fork": "done"}


async def test_who_needs_a_folder_for_another_program_is_told_how(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "library").write_text("text")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "llama-server"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/library >&2\nexit 3\n")
    program.chmod(0o755)
    spec = RunnerSpec(model=str(tiny_gguf), num_ctx=512, pool=512, own_template=False)
    log = tmp_path / "worker.log"
    with pytest.raises(EngineDied, match=r"Permission denied\nit runs in a cage .*: CORRAL_WORKER_FOLDERS names "):
        await launch(spec, log=log, stall_timeout=60, program=str(program))
    opened = Cage(folders=(str(tmp_path / "library"),))
    with pytest.raises(EngineDied, match=r": exit status 3: text$"):
        await launch(spec, log=log, stall_timeout=60, program=str(program), cage=opened)


async def test_without_a_cage_there_is_none(tiny_gguf: Path, tmp_path: Path) -> None:
    spec = RunnerSpec(model=str(tiny_gguf), num_ctx=512, pool=512)
    engine = await launch(spec, log=tmp_path / "worker.log", stall_timeout=60, cage=Cage("off"))
    assert {one["Seccomp"] for one in threads(engine.pid)} == {threads(os.getpid())[0]["Seccomp"]}
    await engine.close()


def test_where_it_is_required_nothing_starts_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage, "support", lambda: Support(0, True))
    cage.check(Cage())
    with pytest.raises(ConfigError, match=r'^CORRAL_WORKER_CAGE is "required", and this system has no Landlock$'):
        cage.enter(Cage("required"), Needs())


async def test_a_job_reads_what_it_is_given_and_writes_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "out").mkdir()
    for name in ("source", "outside"):
        (tmp_path / name).write_text("text")
    one = Job(
        "tests.job_functions:touch",
        list[str],
        "trying",
        source=tmp_path / "source",
        target=tmp_path / "out",
        outside=str(tmp_path / "outside"),
    )
    async with aclosing(one.steps()) as steps:
        assert [step async for step in steps] == []
    assert one.result == ["done", "EACCES", "done", "EACCES"]


async def test_a_job_has_no_network(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    one = Job("tests.job_functions:send", type(None), "trying")
    with pytest.raises(InternalError):
        async with aclosing(one.steps()) as steps:
            _ = [step async for step in steps]
    assert "PermissionError" in caplog.text


@pytest.mark.parametrize(
    ("wish", "found", "level", "text"),
    [
        (Cage(), Support(6, True), "ok", "and make no connection (Landlock 6, seccomp)"),
        (Cage(folders=("/a", "/b")), Support(6, True), "ok", "; further folders: /a, /b"),
        (Cage(), Support(0, True), "note", "in part: without Landlock they can read and write your files"),
        (Cage("required"), Support(0, True), "wrong", "in part: without Landlock they can read and write your files"),
        (Cage(), Support(1, True), "note", "in part: Landlock 1 does not keep them from listening on other ports"),
        (Cage(), Support(6, False), "note", "in part: without seccomp they can use sockets other than TCP's"),
        (Cage("off"), Support(6, True), "note", "may do all that you may: CORRAL_WORKER_CAGE is off"),
        (Cage(), None, "note", "on this system: Linux only"),
    ],
)
def test_the_doctor_says_what_holds_here(wish: Cage, found: Support | None, level: str, text: str) -> None:
    finding = judged(wish, found)
    assert (finding.level, finding.text[-len(text) :]) == (level, text)


def test_a_home_folder_among_the_libraries_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `/usr/share/ollama` is for Ollama's service, or a home folder that is on Python's path."""
    places._home.cache_clear()
    monkeypatch.setenv("HOME", "/usr/local/someone")
    monkeypatch.setattr(sys, "path", ["/usr/local/someone", "/usr/local/someone/packages"])
    granted = set(places.libraries())
    places._home.cache_clear()
    assert Path("/usr/local/someone/packages") in granted
    assert not granted & {Path("/usr/local/someone"), Path("/usr/local"), Path("/usr"), Path("/usr/share"), Path("/")}
