"""Answers that go on when their client has gone, and are read on from where it was."""

import json
import socket
from typing import Any

from corral.server.http import kept_answers
from tests.asking import ask, post, until
from tests.conftest import RunningServer

KEEP = {"x-corral-keep-answer": "1"}


def begin(server: RunningServer, prompt: str, request_id: str, *, is_kept: bool = True) -> socket.socket:
    """Sends a request, for an answer that is kept unless it says otherwise, and leaves the answer unread."""
    body = json.dumps({"model": "fake", "prompt": prompt, "raw": True}).encode()
    host, port = server.host.split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    headers = {"host": server.host, "x-request-id": request_id, "content-length": str(len(body))}
    if is_kept:
        headers |= KEEP
    lines = ["POST /api/generate HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


def text_of(lines: list[dict[str, str]]) -> str:
    return "".join(line["response"] for line in lines)


def test_an_answer_goes_on_without_its_client(fake_server: RunningServer) -> None:
    connection = begin(fake_server, "!tokens=6 !hold=2", "left")
    seen = b""
    while b"w2 " not in seen:
        seen += connection.recv(65536)
    connection.close()
    (fake_server.home / "go").touch()
    whole = ask(fake_server, "GET", "/api/answers/left")
    assert text_of(whole.lines) == "w1 w2 w3 w4 w5 w6 "
    assert whole.lines[-1]["done"] is True
    after = whole.body.index(b"\n") + 1
    assert ask(fake_server, "GET", f"/api/answers/left?after={after}").body == whole.body[after:]
    assert whole.headers["content-type"] == "application/x-ndjson"


def test_an_answer_that_is_read_is_the_same_as_without_keeping_it(fake_server: RunningServer) -> None:
    asked = {"model": "fake", "prompt": "!tokens=3", "raw": True}
    kept = ask(fake_server, "POST", "/api/generate", asked, {**KEEP, "x-request-id": "read"})
    assert text_of(kept.lines) == text_of(post(fake_server, "/api/generate", asked).lines)
    assert kept.headers["x-request-id"] == "read"
    missing = ask(fake_server, "POST", "/api/generate", {"model": "nothing"}, KEEP)
    assert (missing.status, missing.error) == (404, "model 'nothing' not found")


def test_a_kept_answer_can_be_stopped(fake_server: RunningServer) -> None:
    begin(fake_server, "!tokens=9 !hold=1", "stopped").close()
    until(lambda: ask(fake_server, "GET", "/api/requests?id=stopped").json["requests"])
    assert ask(fake_server, "DELETE", "/api/answers/stopped").status == 200
    until(lambda: _report(fake_server, "stopped")["state"] == "stopped")
    assert _report(fake_server, "stopped")["reason"] == "stopped by its user"


def test_a_request_whose_client_left_was_not_stopped(fake_server: RunningServer) -> None:
    with begin(fake_server, "!tokens=9 !hold=1", "gone", is_kept=False) as connection:
        assert connection.recv(1) == b"H"
    until(lambda: _report(fake_server, "gone")["state"] == "failed")
    assert _report(fake_server, "gone")["reason"] == "the client left"


def _report(server: RunningServer, request_id: str) -> dict[str, Any]:
    report: dict[str, Any] = ask(server, "GET", f"/api/requests?id={request_id}").json["requests"][0]
    return report


def test_what_is_not_kept_is_said(fake_server: RunningServer) -> None:
    unknown = ask(fake_server, "GET", "/api/answers/unknown")
    assert (unknown.status, unknown.error) == (404, 'no answer "unknown" is kept')
    wrong = ask(fake_server, "GET", "/api/answers/unknown?after=-1")
    assert (wrong.status, wrong.error) == (400, 'after must be a number of bytes, got "-1"')


def test_ended_answers_make_room() -> None:
    answers = kept_answers.KeptAnswers()
    kept = {name: answers.add(name) for name in (f"a{number}" for number in range(kept_answers.MAX_ANSWERS))}
    assert all(kept.values())
    assert answers.add("one more") is None
    assert answers.add("a3") is None
    fourth = kept["a4"]
    assert fourth
    fourth.end()
    assert answers.add("one more")
    assert answers.add("a4") is None  # it went, and there is no room for another
