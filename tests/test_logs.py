"""What the server writes of its work: one line a request, however it ends, as text or as JSON."""

import hashlib
import http.client
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model
from tests.engines import engines


def connect(server: RunningServer) -> http.client.HTTPConnection:
    host, port = server.host.rsplit(":", 1)
    return http.client.HTTPConnection(host, int(port), timeout=60)


def post(server: RunningServer, path: str, **body: Any) -> tuple[int, bytes]:
    """Status and whole answer; the model is `fake` unless another is named."""
    connection = connect(server)
    connection.request("POST", path, json.dumps({"model": "fake", **body}))
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer


def lines(server: RunningServer, containing: str, count: int = 1) -> list[str]:
    """The log's lines that contain a text, as soon as there are so many; the server goes on running."""
    while True:
        found = [line for line in server.log.read_text().splitlines() if containing in line]
        if len(found) >= count:
            return found
        assert server.process.poll() is None, server.log.read_text()


@pytest.fixture
def json_server(start_server: StartServer, tmp_path: Path, tiny_gguf: Path) -> RunningServer:
    """A server over the fake engine that logs in JSON."""
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    return start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), CORRAL_LOG_FORMAT="json")


def rows(server: RunningServer, path: str, count: int = 1) -> list[dict[str, Any]]:
    """The JSON lines of requests for a path, without what differs from run to run."""
    found = [json.loads(line) for line in lines(server, f'"path": "{path}"', count)]
    for row in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)", row.pop("time"))
        assert row.pop("seconds") >= 0
        assert re.fullmatch(r"telemetry\.py:\d+", row.pop("source"))
        row.pop("msg")
    return found


def row(status: int, method: str, path: str, level: str = "INFO", **more: str) -> dict[str, Any]:
    return {"level": level, "status": status, "client": "127.0.0.1", "method": method, "path": path, **more}


def test_each_kind_of_ending_is_one_json_line(json_server: RunningServer) -> None:
    post(json_server, "/api/generate", prompt="!tokens=2", raw=True)
    post(json_server, "/api/chat", model="nope", messages=[])
    post(json_server, "/api/embed", input="x", options={"num_ctx": "big"})
    post(json_server, "/api/nothing/at/all")
    post(json_server, "/api/show")
    assert rows(json_server, "/api/generate") == [row(200, "POST", "/api/generate")]
    assert rows(json_server, "/api/chat") == [row(404, "POST", "/api/chat", note="model 'nope' not found")]
    sentence = 'option "num_ctx" must be of type integer'
    assert rows(json_server, "/api/embed") == [row(500, "POST", "/api/embed", "ERROR", note=sentence)]
    assert rows(json_server, "/api/nothing/at/all") == [row(404, "POST", "/api/nothing/at/all")]
    assert rows(json_server, "/api/show") == [row(200, "POST", "/api/show")]


def test_every_line_of_a_json_log_is_an_object_with_the_same_first_members(json_server: RunningServer) -> None:
    post(json_server, "/api/generate", prompt="!crash", raw=True)
    post(json_server, "/api/generate", keep_alive=0)
    lines(json_server, "/api/generate", 2)
    log = json_server.log.read_text().splitlines()
    (listening,) = [place for place, line in enumerate(log) if "Listening on" in line]
    for line in log[listening:]:  # above it the new key is told, once, to whoever starts the first server
        assert list(json.loads(line))[:4] == ["time", "level", "source", "msg"], line


def test_a_text_log_has_a_line_a_request_that_tools_for_ollamas_log_can_read(fake_server: RunningServer) -> None:
    post(fake_server, "/api/chat", model='no"pe\n', messages=[])
    (line,) = lines(fake_server, "/api/chat")
    pattern = (
        r"time=\S+ level=INFO source=telemetry\.py:\d+ "
        r'msg="400 \| [\d.]+ms \| 127\.0\.0\.1 \| POST /api/chat \| invalid model name"'
    )
    assert re.fullmatch(pattern, line)


def test_a_stream_that_ends_in_an_error_says_so_in_its_line(json_server: RunningServer) -> None:
    _, answer = post(json_server, "/api/generate", prompt="!tokens=3 !error-after=1", raw=True)
    sentence = json.loads(answer.splitlines()[-1])["error"]
    assert rows(json_server, "/api/generate") == [row(200, "POST", "/api/generate", "WARNING", note=sentence)]


def test_a_job_that_is_refused_says_why_in_its_line(json_server: RunningServer) -> None:
    post(json_server, "/api/create", model="x", stream=False, **{"from": "bad name!"})
    assert rows(json_server, "/api/create") == [row(400, "POST", "/api/create", note="invalid model name")]


def test_a_client_that_hangs_up_before_the_answer_is_one_line(json_server: RunningServer) -> None:
    connection = connect(json_server)
    connection.request("POST", "/api/generate", json.dumps({"model": "fake", "prompt": "!hang", "raw": True}))
    lines(json_server, "loaded in")
    engines(json_server.home)[0].wait("hanging")
    connection.close()
    assert rows(json_server, "/api/generate") == [row(499, "POST", "/api/generate", note="the client hung up")]


def test_a_client_that_hangs_up_in_the_middle_is_one_line(json_server: RunningServer) -> None:
    connection = connect(json_server)
    connection.request("POST", "/api/generate", json.dumps({"model": "fake", "prompt": "!hold=1", "raw": True}))
    response = connection.getresponse()
    assert json.loads(response.readline())["response"]
    response.close()
    connection.close()
    assert rows(json_server, "/api/generate") == [row(200, "POST", "/api/generate", note="the client hung up")]


def test_an_upload_that_breaks_off_is_one_line_and_leaves_nothing(json_server: RunningServer) -> None:
    digest = hashlib.sha256(b"never whole").hexdigest()
    path = f"/api/blobs/sha256:{digest}"
    before = sorted((json_server.models / "blobs").iterdir())
    with socket.create_connection(("127.0.0.1", int(json_server.host.split(":")[1])), timeout=60) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: {json_server.host}\r\nContent-Length: 1000000\r\n\r\n"
        client.sendall(head.encode() + b"x" * 50000)
    assert rows(json_server, path) == [row(499, "POST", path, note="the client hung up")]
    assert [line for line in json_server.log.read_text().splitlines() if "exception" in line] == []
    assert sorted((json_server.models / "blobs").iterdir()) == before


def test_a_request_that_is_cut_off_before_its_end_is_one_line(json_server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", int(json_server.host.split(":")[1])), timeout=60) as client:
        client.sendall(f"POST /api/show HTTP/1.1\r\nHost: {json_server.host}\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert rows(json_server, "/api/show") == [row(499, "POST", "/api/show", note="the client hung up")]


def test_debug_lines_are_written_when_asked_for(start_server: StartServer, tmp_path: Path, tiny_gguf: Path) -> None:
    for debug, count in (("0", 0), ("1", 1)):
        home = tmp_path / debug
        add_model(home / ".ollama" / "models", "fake", tiny_gguf)
        server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_DEBUG=debug)
        post(server, "/api/generate", prompt="!tokens=2 x", raw=True)
        lines(server, "/api/generate")
        told = [line for line in server.log.read_text().splitlines() if "level=DEBUG" in line]
        assert [line.split("msg=")[1] for line in told] == [
            '"model fake:latest: 2 tokens read, 0 of them from the cache, 2 written, stop"'
        ][:count]
