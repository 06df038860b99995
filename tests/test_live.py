"""How busy the loaded models are: `/api/ps?live=true`, and the rates in it."""

from pathlib import Path

import pytest

from corral.client import Client
from corral.client.live import Live
from corral.config.address import parse_address
from corral.serving.traffic import WINDOW, Rate
from tests.asking import InBackground, Streaming, ask, generate, streaming, until
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model
from tests.engines import tell
from tests.tiny_models import tiny_llama


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_the_average_of_the_last_seconds() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate.per_second() == 0
    for _ in range(WINDOW * 4):
        rate.add(10)
        clock.now += 0.5
    assert rate.per_second() == pytest.approx(20)
    clock.now += 2
    assert rate.per_second() == pytest.approx(20 * (WINDOW - 2) / WINDOW)
    clock.now += WINDOW
    assert rate.per_second() == 0


def test_a_second_that_comes_around_again_is_counted_anew() -> None:
    clock = Clock()
    rate = Rate(clock)
    rate.add(1000)
    clock.now += WINDOW + 1
    rate.add(WINDOW)
    assert rate.per_second() == 1


def live_of(server: RunningServer) -> Live:
    (model,) = Client(parse_address(server.host)).watch().models
    assert model.live is not None
    return model.live


def test_nothing_new_is_said_unless_it_is_asked_for(fake_server: RunningServer) -> None:
    generate(fake_server, "hello")
    plain = ask(fake_server, "GET", "/api/ps").json
    assert plain.keys() == {"models"}
    assert "live" not in plain["models"][0]
    (model,) = Client(parse_address(fake_server.host)).ps()
    assert model.live is None


def test_slots_pool_and_tokens_of_a_request_are_seen_while_it_runs(fake_server: RunningServer) -> None:
    generate(fake_server, "one two three", raw=True)
    before = live_of(fake_server)
    assert (before.slots_busy, before.pool_used, before.waiting, before.served) == (0, 0, 0, 1)
    assert before.slots > 0
    assert before.pool > 0
    body = {"model": "fake", "prompt": "!tokens=2 !hold=1", "raw": True, "options": {"num_predict": 50}}
    with streaming(fake_server, "/api/generate", body) as stream:
        stream.line()
        during = live_of(fake_server)
        assert during.slots_busy == 1
        assert 50 < during.pool_used < 100
        (fake_server.home / "go").touch()
        stream.rest()
    after = live_of(fake_server)
    assert (after.slots_busy, after.pool_used, after.served) == (0, 0, 2)


def test_tokens_a_second_are_those_that_were_read_and_written(fake_server: RunningServer) -> None:
    """Of a window that they all fall into; a machine that takes longer is given another try."""

    def seen() -> bool:
        generate(fake_server, "!tokens=40 " + "word " * 99, raw=True)
        live = live_of(fake_server)
        return bool(live.read_rate and live.written_rate)

    until(seen)


def test_requests_that_wait_are_counted(fake_server: RunningServer) -> None:
    # With a seed each keeps a whole context to itself, of which the pool has one.
    body = {"model": "fake", "prompt": "!tokens=2 !hold=1", "options": {"seed": 1}}
    streams = [Streaming(fake_server, "/api/generate", body) for _ in range(3)]
    until(lambda: bool(ask(fake_server, "GET", "/api/ps?live=true").json["waiting"]))
    until(lambda: live_of(fake_server).slots_busy == 1)
    until(lambda: live_of(fake_server).waiting == 2)
    live = live_of(fake_server)
    assert (live.slots_busy, live.pool_used) == (1, live.pool)
    (fake_server.home / "go").touch()
    assert all(stream.rest()[-1]["done"] for stream in streams)
    assert live_of(fake_server).served == 3


def test_a_model_that_loads_says_so(fake_server: RunningServer) -> None:
    tell(fake_server.home, loads_when="loaded")
    with streaming(fake_server, "/api/generate", {"model": "fake", "progress": True}) as stream:
        stream.line()
        assert live_of(fake_server).is_loading
        (fake_server.home / "loaded").touch()
        stream.rest()
    assert not live_of(fake_server).is_loading
    memory = ask(fake_server, "GET", "/api/ps?live=true").json["memory"]
    assert 0 < memory["workers"] < memory["total"]


def test_an_evicted_model_is_listed_until_its_last_answer_has_ended(start_server: StartServer, tiny_gguf: Path) -> None:
    server = start_server(CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_MAX_LOADED_MODELS="1")
    add_model(server.models, "first", tiny_gguf)
    add_model(server.models, "second", tiny_llama(server.home / "second.gguf", seed=1))

    def listed() -> list[str]:
        return [model["name"] for model in ask(server, "GET", "/api/ps").json["models"]]

    with streaming(server, "/api/generate", {"model": "first", "prompt": "!tokens=2 !hold=1"}) as stream:
        stream.line()
        other = InBackground(lambda: generate(server, "Hi", "second"))
        until(lambda: "model first:latest is evicted" in server.log.read_text())
        assert listed() == ["first:latest"]
        (server.home / "go").touch()
        assert stream.rest()[-1]["done"]
    assert other.result().status == 200
    assert listed() == ["second:latest"]
