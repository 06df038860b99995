"""The watch on the event loops of servers: it finds callbacks that are blocked or busy, and no others."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WATCHED

PROGRAM = """
import asyncio, sys, threading, time, uvloop

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def blocked():
    time.sleep(0.7)

def paged():
    time.sleep(0.3)

def busy():
    burn(0.2)

async def task():
    busy()

def quick():
    burn(0.03)

def contended():
    threading.Thread(target=burn, args=(0.4,)).start()
    burn(0.06)

class Answer(asyncio.Protocol):
    def data_received(self, data):
        getattr(sys.modules["__main__"], data.decode())()

async def main():
    loop = asyncio.get_running_loop()
    if mode == "before":
        blocked()
    server = await loop.create_server(Answer, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await asyncio.sleep(0.05)
    match mode:
        case "before":
            pass
        case "task":
            await asyncio.create_task(task(), name="the busy task")
        case "received":
            writer.write(b"busy")
        case "process":
            assert await (await asyncio.create_subprocess_exec(sys.executable, "-c", "")).wait() == 0
        case "thread":
            await asyncio.to_thread(blocked)
        case "many":
            for _ in range(10):
                loop.call_soon(quick)
        case "later":
            loop.call_later(0.01, blocked)
        case _:
            loop.call_soon(getattr(sys.modules["__main__"], mode))
    await asyncio.sleep(1.0)

mode = sys.argv[2]
uvloop.run(main())
"""


def found(tmp_path: Path, mode: str) -> list[dict[str, Any]]:
    """What is written of a program that does this on its loop."""
    log = tmp_path / "held.jsonl"
    variables = {**os.environ, **WATCHED, "CORRAL_TEST_LOOP_LOG": str(log)}
    subprocess.run([sys.executable, "-c", PROGRAM, "serve", mode], env=variables, check=True)
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize(
    ("mode", "callback", "stack"),
    [
        ("blocked", "function blocked", "in blocked"),
        ("later", "function blocked", "in blocked"),
        ("busy", "function busy", "in burn"),
        ("task", "the busy task", "in burn"),
        ("received", "Answer.data_received", "in burn"),
    ],
)
def test_a_callback_that_holds_up_the_loop_is_found(tmp_path: Path, mode: str, callback: str, stack: str) -> None:
    (one,) = found(tmp_path, mode)
    assert callback in one["callback"]
    assert stack in one["stack"]
    assert one["held"] > 0.1


@pytest.mark.parametrize("mode", ["paged", "quick", "many", "thread", "process", "before"])
def test_quick_callbacks_and_what_is_done_elsewhere_or_at_start_are_no_fault(tmp_path: Path, mode: str) -> None:
    assert found(tmp_path, mode) == []


@pytest.mark.parametrize("mode", ["quick", "many", "process"])
def test_other_programs_that_are_busy_are_no_fault_of_a_callback(tmp_path: Path, mode: str) -> None:
    with busy_machine():
        assert found(tmp_path, mode) == []


def test_a_thread_that_holds_the_interpreters_lock_is_no_fault_of_a_callback(tmp_path: Path) -> None:
    assert found(tmp_path, "contended") == []


@contextmanager
def busy_machine() -> Iterator[None]:
    """A machine where three programs want each core."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()
