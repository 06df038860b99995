"""Long computations in child processes, with real child processes."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from corral import job as module
from corral.cage import Cage
from corral.errors import (
    ContextExceeded,
    CorralError,
    InternalError,
    JobDied,
    ModelFileError,
    ModelNotFound,
    OutOfMemory,
)
from corral.job import Job
from corral.messages import Progress
from tests.conftest import ROOT
from tests.job_functions import Sum
from tests.processes import wait_for_end


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds the functions of the tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def job(name: str, result: type[Any] = NoneType, **arguments: object) -> Job[Any]:
    return Job(f"tests.job_functions:{name}", result, "adding up", cage=Cage(), **arguments)


async def run(name: str, result: type[Any] = NoneType, **arguments: object) -> Any:
    one = job(name, result, **arguments)
    async with aclosing(one.steps()) as steps:
        async for _ in steps:
            pass
    return one.result


async def test_paths_and_values_go_there_and_come_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    odd = tmp_path / os.fsdecode(b"\xff \n")
    odd.write_bytes(b"45")
    files = {"a": tmp_path / "a", "b": odd}
    one = Job("tests.job_functions:total", Sum, "adding up", files=files, times=2)
    async with aclosing(one.steps()) as steps:
        assert [step async for step in steps] == [Progress("a", completed=3), Progress("b", completed=5)]
    assert one.result == Sum(10, files)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("with data", ContextExceeded("too long", tokens=7, limit=5)),
        ("with a sentence of its own", ModelNotFound("a")),
        ("without arguments", InternalError()),
        ("unknown", ModelFileError("a new sentence")),
        ("memory", OutOfMemory("not enough memory")),
    ],
)
async def test_an_error_comes_back_as_its_kind_with_its_data(kind: str, expected: CorralError) -> None:
    with pytest.raises(CorralError) as caught:
        await run("fail", kind=kind)
    assert type(caught.value) is type(expected)
    assert (str(caught.value), vars(caught.value)) == (str(expected), vars(expected))


async def test_an_unexpected_exception_is_logged_and_said_plainly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError, match=r"^internal server error, see the log"):
        await run("fail", kind="unexpected")
    assert "adding up failed" in caplog.text
    assert "in fail" in caplog.text
    assert "ValueError: a mistake" in caplog.text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("crash", r"^adding up ended before it was done \(signal: aborted\)$"),
        ("leave", r"^adding up ended before it was done \(exit status 3\)$"),
    ],
)
async def test_a_child_that_crashes_says_how(name: str, sentence: str) -> None:
    with pytest.raises(JobDied, match=sentence):
        await run(name)


async def first_step(steps: AsyncGenerator[Progress, None]) -> int:
    """The process id that a function of ours reports first."""
    return int((await anext(steps)).status)


async def test_a_killed_child_is_taken_to_have_run_out_of_memory(tmp_path: Path) -> None:
    async with aclosing(job("wait_for_ever", target=tmp_path).steps()) as steps:
        os.kill(await first_step(steps), signal.SIGKILL)
        with pytest.raises(
            OutOfMemory, match=r"^adding up was ended by the system, most likely because memory ran out$"
        ):
            await anext(steps)


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_closing_ends_the_child_which_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 60)
    async with aclosing(job("wait_for_ever", target=tmp_path).steps()) as steps:
        pid = await first_step(steps)
        assert contents(tmp_path)
    wait_for_end(pid)
    assert not contents(tmp_path)


async def test_cancelling_ends_the_child(tmp_path: Path) -> None:
    steps = job("wait_for_ever", target=tmp_path).steps()
    pid = await first_step(steps)
    waiting = asyncio.ensure_future(anext(steps))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    wait_for_end(pid)


async def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.1)
    async with aclosing(job("never_listen").steps()) as steps:
        pid = await first_step(steps)
    wait_for_end(pid)


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, pathlib, sys
        from corral.job import Job

        async def main():
            one = Job("tests.job_functions:wait_for_ever", type(None), "waiting", target=pathlib.Path(sys.argv[1]))
            async for step in one.steps():
                print(step.status, flush=True)

        asyncio.run(main())
    """)
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        parent.kill()
    wait_for_end(child)


async def test_a_job_steps_back_behind_others_and_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert await run("niceness", int) == min(os.nice(0) + 10, 19)
    assert "HF_TOKEN" not in await run("variables", dict[str, str])
    assert await run("process_id", int) != os.getpid()
