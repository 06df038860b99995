"""Which server is asked next: loops, probes, what waits, and where all of that is said."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.asking import InBackground, ask, post, until
from tests.conftest import FAKE_ENGINE, RunningServer, add_model
from tests.fake_upstream import dead_url, fake_upstream
from tests.test_upstreams import HELLO, chat, front


def host_of(url: str) -> str:
    return url.removeprefix("http://")


def test_two_servers_that_are_each_others_upstreams_say_so(tmp_path: Path) -> None:
    one, other = dead_url(), dead_url()
    with (
        front(tmp_path / "one", {"m": [{"url": other}]}, OLLAMA_HOST=host_of(one)) as first,
        front(tmp_path / "other", {"m": [{"url": one}]}, OLLAMA_HOST=host_of(other)) as second,
    ):
        for server in (first, second):
            answer = chat(server, "m")
            assert answer.status in (502, 503)
            assert "the request has come back to this server: it is among its own upstreams" in answer.error
            embedded = post(server, "/api/embed", {"model": "m", "input": "a"})
            assert (embedded.status in (502, 503), "has come back" in embedded.error) == (True, True)


def test_a_loop_beside_a_good_server_is_left_out(tmp_path: Path) -> None:
    one, other = dead_url(), dead_url()
    with fake_upstream() as good:
        two: list[dict[str, Any]] = [{"url": other, "weight": 100}, {"url": good.url, "model": "good"}]
        with (
            front(tmp_path / "one", {"m": two}, OLLAMA_HOST=host_of(one)) as server,
            front(tmp_path / "other", {"m": [{"url": one}]}, OLLAMA_HOST=host_of(other)),
        ):
            for _ in range(3):
                answer = chat(server, "m")
                assert (answer.status, answer.headers["x-corral-replica"]) == (200, good.name)
        assert len(good.asked()) == 3, "a request was asked twice on its way around"


def test_requests_that_wait_for_a_server_share_one_probe(tmp_path: Path) -> None:
    count = 6
    with fake_upstream() as one, front(tmp_path, {"m": [{"url": one.url, "model": "good"}]}) as server:
        one.failing = 503
        assert chat(server, "m").status == 502
        one.may_be_probed.clear()
        asked = [InBackground(lambda: chat(server, "m")) for _ in range(count)]

        def waiting() -> int:
            reports = ask(server, "GET", "/api/requests").json["requests"]
            return sum(report["state"] == "waiting" for report in reports)

        until(lambda: waiting() == count and one.probed.is_set())
        for _ in range(50):  # by then all of them have come to where they would ask
            assert ask(server, "GET", "/api/version").status == 200
        one.failing = 0
        one.may_be_probed.set()
        assert [one.result().status for one in asked] == [200] * count
        assert one.most_probes == 1


def test_header_log_metrics_and_explain_name_the_replica_and_why(tmp_path: Path) -> None:
    with fake_upstream() as one, front(tmp_path, {"m": [{"url": one.url, "model": "good"}]}) as server:
        one.failing = 500
        assert chat(server, "m").status == 502
        one.failing = 0
        answer = post(server, "/api/chat", {"model": "m", "messages": HELLO})
        assert answer.headers["x-corral-replica"] == one.name
        reason = answer.headers["x-corral-replica-reason"]
        log = server.log.read_text()
        assert f"model m:latest: a request goes to {one.name}: {reason}" in log
        assert re.search(rf"level=WARN .*model m:latest: upstream .{{0,2}}{one.name}.* answers with status 500", log)
        metrics = ask(server, "GET", "/metrics").body.decode()
        labels = f'{{model_name="m:latest",replica="{one.name}"}}'
        for series in ("replica_requests_total", "replica_failures_total", "replica_up"):
            value = "2.0" if "requests" in series else "1.0"
            assert f"corral_{series}{labels} {value}" in metrics, series
        reports = ask(server, "GET", "/api/requests").json["requests"]
        assert [(one["replica"], one["replica_reason"]) for one in reports] == [(one.name, reason)] * 2


@pytest.fixture
def model_here(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A home with the model `fake` in its store."""
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    return home


def said(server: RunningServer) -> tuple[str, str]:
    """Who answers for `fake`, and what."""
    answer = post(server, "/api/chat", {"model": "fake", "messages": [{"role": "user", "content": "Hi !tokens=2"}]})
    return answer.headers["x-corral-replica"], "".join(line["message"]["content"] for line in answer.lines)


def test_a_server_that_takes_no_more_is_left_alone_while_this_machine_answers(model_here: Path) -> None:
    with fake_upstream() as other:
        models: dict[str, list[dict[str, Any]]] = {"fake": [{"url": other.url, "model": "busy"}]}
        with front(model_here, models, spill="remote-first", CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
            assert said(server) == ("local", "w1 w2 ")
            assert len(other.asked()) == 1, "it comes first"
            for _ in range(3):
                assert said(server) == ("local", "w1 w2 ")
            assert len(other.asked()) == 1, "it was asked again within the time that it wants"


def test_a_model_that_is_here_too_is_listed_with_where_else_it_may_go(model_here: Path, tiny_gguf: Path) -> None:
    add_model(model_here / ".ollama" / "models", "alone", tiny_gguf)
    with fake_upstream() as other:
        models: dict[str, list[dict[str, Any]]] = {"Fake": [{"url": other.url, "model": "good"}]}
        with front(model_here, models, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
            tags = {one["name"]: one for one in ask(server, "GET", "/api/tags").json["models"]}
            assert tags.keys() == {"fake:latest", "alone:latest"}
            assert tags["fake:latest"]["spills_to"] == [other.url.removesuffix("/v1")]
            assert "remote_host" not in tags["fake:latest"]
            assert "spills_to" not in tags["alone:latest"]
            listed = [one["id"] for one in ask(server, "GET", "/v1/models").json["data"]]
            assert sorted(listed) == ["alone:latest", "fake:latest"]
