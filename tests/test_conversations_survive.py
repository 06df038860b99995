"""Conversations survive the end of their model, in the real engine: the same answers, without reading them again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import asking
from tests.asking import metric, post, until
from tests.conftest import RunningServer, add_model, running_server
from tests.test_real_engine import workers
from tests.tiny_models import tiny_llama

PROMPTS = [f"{number}: " + " ".join(str(number * n % 97) for n in range(150)) for number in range(20)]
"""Some 400 tokens each: the tiny model has one for a character, nearly."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("kept")
    add_model(work / "home" / ".ollama" / "models", "tiny", tiny_llama(work / "tiny.gguf"))
    with running_server(work / "home") as server:
        yield server


def ask(server: RunningServer, prompt: str, **more: Any) -> Any:
    options = {"temperature": 0, "num_predict": 12, "num_ctx": 2048}
    body = {"model": "tiny", "prompt": prompt, "raw": True, "stream": False, "options": options, **more}
    answer = post(server, "/api/generate", body)
    assert answer.status == 200, answer.body
    return answer.json


def unload(server: RunningServer) -> None:
    post(server, "/api/generate", {"model": "tiny", "keep_alive": 0})
    until(lambda: not is_loaded(server))


def is_loaded(server: RunningServer) -> bool:
    return bool(asking.ask(server, "GET", "/api/ps").json["models"])


def states(server: RunningServer) -> list[Path]:
    return sorted(server.models.glob("conversations/*/*/*.state"))


def test_greedy_answers_are_the_same_after_an_unload(server: RunningServer) -> None:
    """Twenty conversations that go on in their slots, and again from the disk."""
    turns = [prompt + ask(server, prompt)["response"] + " and" for prompt in PROMPTS]
    in_memory = [ask(server, turn)["response"] for turn in turns]
    unload(server)
    for file in states(server):
        file.unlink()
    from_disk = []
    for prompt, turn in zip(PROMPTS, turns, strict=True):
        ask(server, prompt, keep_alive=0)
        until(lambda: not is_loaded(server))
        before = metric(server, "corral_prefix_cache_hits_total")
        from_disk.append(ask(server, turn, keep_alive=0)["response"])
        assert metric(server, "corral_prefix_cache_hits_total") - before > len(prompt) // 2
        until(lambda: not is_loaded(server))
    assert from_disk == in_memory
    assert len(states(server)) < 2 * len(PROMPTS)  # the longer one replaces the shorter


def test_conversations_that_have_left_their_slots_are_kept_too(server: RunningServer) -> None:
    """Six take turns in fewer slots; after an unload each goes on without being read again."""
    turns = [f"several {prompt}" for prompt in PROMPTS[:6]]
    turns = [turn + ask(server, turn)["response"] + " and" for turn in turns]
    unload(server)
    for turn in turns:
        before = metric(server, "corral_prefix_cache_hits_total")
        ask(server, turn)
        assert metric(server, "corral_prefix_cache_hits_total") - before > len(turn) // 2


def test_damaged_files_change_no_answer(server: RunningServer) -> None:
    prompt = PROMPTS[0] + " damaged"
    expected = ask(server, prompt)["response"]
    unload(server)
    for number, file in enumerate(states(server)):
        data = bytearray(file.read_bytes())
        if number % 2:
            file.write_bytes(data[: len(data) // 2])
        else:
            data[-len(data) // 3] ^= 0x55
            file.write_bytes(data)
    assert ask(server, prompt)["response"] == expected


def test_a_worker_that_is_killed_keeps_nothing_and_harms_nothing(server: RunningServer) -> None:
    ask(server, PROMPTS[1] + " killed")
    before = states(server)
    [worker] = workers(server)
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not is_loaded(server))
    assert [file for file in states(server) if file not in before] == []


def test_they_go_with_the_model(server: RunningServer) -> None:
    ask(server, PROMPTS[2] + " removed")
    unload(server)
    assert states(server)
    assert asking.ask(server, "DELETE", "/api/delete", {"model": "tiny"}).status == 200
    until(lambda: not states(server))  # its worker may just be writing one
