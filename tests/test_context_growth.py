"""A conversation whose `num_ctx` grows at every turn: how long the context becomes, and that it is loaded anew once."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from corral.machine.memory import GIB, Memory
from corral.serving.spec import grown_context
from tests.asking import Answer, generate
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model
from tests.tiny_models import tiny_llama

KIB = 1 << 10
TRAINED = 20000


@pytest.mark.parametrize(
    ("wanted", "trained", "bytes_per_token", "available", "expected"),
    [
        (5000, 32768, 12 * KIB, 64 * GIB, 32768),  # memory for all of it
        (5000, 20000, 12 * KIB, 64 * GIB, 20000),  # which need be no multiple of a step
        (5000, 131072, 128 * KIB, 8 * GIB, 16384),  # a quarter of what is free
        (5000, 131072, 128 * KIB, 9 * GIB, 16384),  # in whole steps
        (5000, 131072, 128 * KIB, 0, 8192),  # at least one step
        (8193, 131072, 128 * KIB, 0, 16384),
        (8192, 131072, 128 * KIB, 0, 8192),
        (5000, 6000, 128 * KIB, 0, 6000),
        (5000, 0, 12 * KIB, 64 * GIB, 8192),  # nothing is known of its training
        (5000, 131072, 0, 0, 131072),  # a model without a cache
        (2048, 1024, 12 * KIB, 64 * GIB, 2048),  # a vision model has to have 2048
        (5000, 1 << 30, 0, 0, 1 << 24),
    ],
)
def test_a_context_that_grows(wanted: int, trained: int, bytes_per_token: int, available: int, expected: int) -> None:
    assert grown_context(wanted, trained, bytes_per_token, Memory(64 * GIB, available)) == expected


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> RunningServer:
    home = tmp_path / "home"
    file = tiny_llama(tmp_path / "long.gguf", context_length=TRAINED)
    add_model(home / ".ollama" / "models", "long", file)
    return start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE))


def turn(server: RunningServer, num_ctx: int | None, prompt: str = "Hi") -> Answer:
    options = {"num_predict": 1, **({} if num_ctx is None else {"num_ctx": num_ctx})}
    answer = generate(server, prompt, model="long", raw=True, options=options)
    assert answer.status == 200
    return answer


def loads(server: RunningServer) -> list[str]:
    """The context of every load so far."""
    lines = server.log.read_text().splitlines()
    return [line.rsplit("context ", 1)[1].strip('"') for line in lines if " loaded in " in line]


def loaded(server: RunningServer) -> Any:
    with urllib.request.urlopen(f"{server.url}/api/ps", timeout=30) as response:
        (model,) = json.load(response)["models"]
    return model["context_length"]


def test_a_num_ctx_that_grows_at_every_turn_loads_anew_once(server: RunningServer) -> None:
    for tokens in range(200, 12000, 1000):
        turn(server, int(tokens * 1.25) + 8192)  # as aider does
    assert loads(server) == ["8442", str(TRAINED)]
    assert loaded(server) == TRAINED
    turn(server, TRAINED + 5000)
    turn(server, None)
    assert len(loads(server)) == 2


def test_what_a_request_asked_for_stays_its_limit(server: RunningServer) -> None:
    turn(server, 16)
    words = " ".join(["word"] * 60)
    before = turn(server, 16, words).headers["x-corral-truncated-tokens"]
    turn(server, 32)
    assert loads(server) == ["16", str(TRAINED)]
    assert turn(server, 16, words).headers["x-corral-truncated-tokens"] == before
    assert int(turn(server, 32, words).headers["x-corral-truncated-tokens"]) > 0
    assert "x-corral-truncated-tokens" not in turn(server, 256, words).headers
    assert loads(server) == ["16", str(TRAINED)]


def test_two_conversations_that_grow_by_turns_load_anew_once(server: RunningServer) -> None:
    for num_ctx in (2048, 4096, 2100, 5000, 2200, 9000, 2300, 12000):
        turn(server, num_ctx)
    assert loads(server) == ["2048", str(TRAINED)]
