"""Where the time of requests went: `/api/requests`, the headers of answers, and `corral explain`."""

import re
from copy import copy
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from corral.cli.commands.explain import HEADERS, described, duration_text, requests_table
from corral.client import Client
from corral.client.explained import PHASES, explained
from corral.config.address import parse_address
from corral.errors import CorralError
from corral.inference.recent import KEPT, Recent, Report
from tests.asking import Answer, ask, generate, post, streaming, until
from tests.conftest import RunningServer

NOW = datetime(2026, 5, 1, 12, 0, 10, tzinfo=UTC)
ENTRY = {
    "id": "req_0123456789abcdef",
    "created_at": "2026-05-01T12:00:00Z",
    "kind": "chat",
    "model": "tiny:latest",
    "state": "done",
    "reason": "stop",
    "queue_duration": 2_000_000,
    "load_duration": 500_000_000,
    "prompt_duration": 250_000_000,
    "generation_duration": 1_000_000_000,
    "first_token_duration": 760_000_000,
    "total_duration": 2_000_000_000,
    "prompt_tokens": 150,
    "cached_tokens": 100,
    "generated_tokens": 70,
    "context_length": 4096,
    "warnings": ["tool_call_unparsed"],
}


def requests_of(server: RunningServer, request_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(server, "GET", f"/api/requests?id={request_id}").json["requests"]
    return found


def phases_of(answer: Answer) -> dict[str, float]:
    found = re.findall(r'(\w+);dur=([\d.]+)(?:;desc="[^"]*")?(?:, |\Z)', answer.headers.get("server-timing", ""))
    return {name: float(duration) for name, duration in found}


def test_only_the_last_requests_are_remembered() -> None:
    recent = Recent()
    for number in range(KEPT + 10):
        report = Report(id=f"r{number}", arrived=0.0, kind="chat", model="m", state="done")
        recent.add(report.id, partial(copy, report))
    assert [report.id for report in recent.reports()] == [f"r{number}" for number in range(KEPT + 9, 9, -1)]
    assert [report.id for report in recent.reports("r20")] == ["r20"]
    assert recent.reports("r3") == []


def test_an_answer_is_explained_by_the_id_in_its_header(fake_server: RunningServer) -> None:
    answer = generate(fake_server, "hello !tokens=4")
    (found,) = requests_of(fake_server, answer.headers["x-request-id"])
    assert (found["kind"], found["model"], found["state"], found["reason"]) == (
        "generate",
        "fake:latest",
        "done",
        "stop",
    )
    assert found["prompt_tokens"] == answer.json["prompt_eval_count"]
    assert found["generated_tokens"] == answer.json["eval_count"]
    durations = {name: found[f"{name}_duration"] for name in (*PHASES, "first_token", "total")}
    assert all(isinstance(duration, int) and duration >= 0 for duration in durations.values())
    assert durations["queue"] + durations["load"] + durations["plan"] + durations["room"] <= durations["first_token"]
    assert durations["first_token"] <= durations["total"]


def test_the_id_is_the_clients_own_where_it_gives_one(fake_server: RunningServer) -> None:
    body = {"model": "fake", "prompt": "hello", "stream": False}
    given = ask(fake_server, "POST", "/api/generate", body, {"X-Request-Id": "my-app:7"})
    assert given.headers["x-request-id"] == "my-app:7"
    assert len(requests_of(fake_server, "my-app:7")) == 1
    for wrong in ("a b", "a" * 65, "<script>", "ä"):
        answer = ask(fake_server, "GET", "/api/version", headers={"X-Request-Id": wrong})
        assert re.fullmatch(r"req_[0-9a-f]{24}", answer.headers["x-request-id"])


def test_each_api_has_the_id_where_its_clients_look_for_it(fake_server: RunningServer) -> None:
    asked = {"model": "fake", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
    assert "x-request-id" in post(fake_server, "/v1/chat/completions", asked).headers
    answer = post(fake_server, "/v1/messages", asked)
    assert "x-request-id" not in answer.headers
    assert len(requests_of(fake_server, answer.headers["request-id"])) == 1
    refused = post(fake_server, "/v1/messages", {**asked, "model": "nope"})
    assert refused.json["request_id"] == refused.headers["request-id"]
    assert "x-request-id" in ask(fake_server, "GET", "/nowhere").headers


def test_an_answer_that_is_not_streamed_says_where_its_time_went(fake_server: RunningServer) -> None:
    generate(fake_server, "hello")
    phases = phases_of(generate(fake_server, "hello !tokens=3"))
    assert {"queue", "plan", "prompt", "first", "generation"} <= phases.keys()
    assert "load" not in phases
    assert "server-timing" not in ask(fake_server, "GET", "/api/tags").headers


def test_the_load_that_a_request_waits_for_is_its_own_time(fake_server: RunningServer) -> None:
    generate(fake_server, "", keep_alive=0)
    until(lambda: not ask(fake_server, "GET", "/api/ps").json["models"])
    phases = phases_of(generate(fake_server, "hello !tokens=3"))
    assert phases["load"] > phases["queue"]


def test_a_request_is_seen_while_it_runs(fake_server: RunningServer) -> None:
    with streaming(fake_server, "/api/generate", {"model": "fake", "prompt": "hi !tokens=3 !hold=1"}) as stream:
        stream.line()
        found = ask(fake_server, "GET", "/api/requests").json["requests"][0]
        assert (found["state"], found["reason"]) == ("answering", "")
        (fake_server.home / "go").touch()
        stream.rest()
    until(lambda: ask(fake_server, "GET", "/api/requests").json["requests"][0]["state"] == "done")


def test_the_model_is_named_as_it_was_asked_for(fake_server: RunningServer) -> None:
    generate(fake_server, "hello")
    assert post(fake_server, "/api/copy", {"source": "fake", "destination": "twin"}).status == 200
    answer = generate(fake_server, "hello", model="twin")  # by the worker that was loaded under the first name
    assert requests_of(fake_server, answer.headers["x-request-id"])[0]["model"] == "twin:latest"


def test_what_fails_says_why(fake_server: RunningServer) -> None:
    failed = generate(fake_server, "hello !crash-after=0")
    (found,) = requests_of(fake_server, failed.headers["x-request-id"])
    assert (found["state"], found["reason"]) == ("failed", failed.error)


def test_no_text_of_a_request_is_kept(fake_server: RunningServer) -> None:
    generate(fake_server, "a secret of mine")
    assert b"secret" not in ask(fake_server, "GET", "/api/requests").body


def test_looking_at_a_prompt_is_no_request(fake_server: RunningServer) -> None:
    asked = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    answer = post(fake_server, "/api/render", asked)
    assert requests_of(fake_server, answer.headers["x-request-id"]) == []


def test_the_client_reads_what_the_server_says(fake_server: RunningServer) -> None:
    answer = generate(fake_server, "hello !tokens=2")
    newest = Client(parse_address(fake_server.host)).explain()[0]
    assert newest.id == answer.headers["x-request-id"]
    assert newest.generated_tokens == 2


def test_a_server_that_lies_is_found_out() -> None:
    with pytest.raises(CorralError, match='unexpected value of "prompt_tokens"'):
        explained({**ENTRY, "prompt_tokens": "many"})
    assert explained({**ENTRY, "total_duration": -5}).durations["total"] == 0


def test_a_request_is_described_at_length() -> None:
    text = described(explained(ENTRY), NOW)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines == [
        "  Request",
        "    id                req_0123456789abcdef",
        "    model             tiny:latest",
        "    asked for         chat, 10 seconds ago",
        "    end               stop",
        "    context length    4096",
        "",
        "  Time",
        "    load           500 ms    25%    until the model was loaded",
        "    prompt         250 ms    12%    reading the prompt",
        "    generation     1.00 s    50%    writing the answer",
        "    rest           248 ms    12%    all else, such as sending",
        "    total          2.00 s",
        "    first token    760 ms",
        "",
        "  Tokens",
        "    prompt    150, of which 100 were cached and 50 read at 200.0 a second",
        "    answer    70 at 70.0 a second",
        "",
        "  Warnings",
        "    tool call unparsed",
        "",
    ]


def test_a_narrow_window_shows_fewer_columns() -> None:
    found = [explained(ENTRY)]
    assert requests_table(found, NOW, None).split("\n")[0].split() == list(HEADERS)
    for width, last in ((200, "WHEN"), (80, "ANSWER"), (40, "END")):
        head = requests_table(found, NOW, width).split("\n")[0].split()
        assert head[-1] == last
        assert head == list(HEADERS)[: len(head)]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0.0 ms"), (1_234_000, "1.2 ms"), (99_900_000, "99.9 ms"), (123_400_000, "123 ms"), (1_500_000_000, "1.50 s")],
)
def test_durations_are_short(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text
