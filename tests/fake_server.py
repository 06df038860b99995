"""A program that answers as a Corral server would, word for word from a script: also what no honest server says.

Run, it reads its script as one line of JSON, `{"METHOD /path": [answer, …]}`, and writes an event a line: its port,
each request, each connection that the client gave up. The last answer to a route repeats. It ends when its input does.
`FakeServer` starts it from a test.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Answer = dict[str, Any]


def reply(body: Any, status: int = 200) -> Answer:
    """A plain JSON answer; a text is sent as it is."""
    return {"status": status, "body": body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)}


def lines(*objects: Any, end: str = "whole") -> Answer:
    """A streamed answer. `end`: `whole`, `cut` in the middle of a chunk, or `held` open until the client goes."""
    return {"status": 200, "lines": [json.dumps(item, ensure_ascii=False) for item in objects], "end": end}


def raw(text: str) -> Answer:
    """Exactly these bytes (Latin-1) instead of an HTTP answer."""
    return {"raw": text}


class FakeServer:
    """The running program. `events` are what it has written so far; `close` ends it and completes them."""

    def __init__(self, routes: Mapping[str, Answer | Sequence[Answer]]) -> None:
        script = {key: [answer] if isinstance(answer, dict) else list(answer) for key, answer in routes.items()}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin
        self._process.stdin.write(json.dumps(script) + "\n")
        self._process.stdin.flush()
        self.events: list[dict[str, Any]] = []
        self.port: int = self.wait_for("port")["port"]
        self.host = f"127.0.0.1:{self.port}"

    def wait_for(self, kind: str) -> dict[str, Any]:
        """The next event of a kind, a minute at most."""
        assert self._process.stdout
        with contextlib.ExitStack() as stack:
            timer = threading.Timer(60, self._process.kill)
            timer.start()
            stack.callback(timer.cancel)
            for line in self._process.stdout:
                event: dict[str, Any] = json.loads(line)
                self.events.append(event)
                if kind in event:
                    return event
        raise AssertionError(f"the fake server ended without {kind!r}: {self.events}")

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self.events += [json.loads(line) for line in self._process.stdout]
        self._process.stdout.close()
        self._process.wait()

    def requests(self) -> list[tuple[str, Any]]:
        """Ends the program; what it was asked, `HEAD /` aside: route and decoded body."""
        self.close()
        asked = [(event["request"], event["body"]) for event in self.events if "request" in event]
        return [(route, json.loads(body) if body else None) for route, body in asked if route != "HEAD /"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.close()


def _main() -> None:
    script: dict[str, list[Answer]] = json.loads(sys.stdin.readline())
    script.setdefault("HEAD /", [{"status": 200, "body": ""}])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _report(port=listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, script), daemon=True).start()
        sys.stdin.read()
        sys.stdout.flush()
        os._exit(0)


def _accept(listener: socket.socket, script: dict[str, list[Answer]]) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, script), daemon=True).start()


_reporting = threading.Lock()


def _report(**event: Any) -> None:
    with _reporting:
        print(json.dumps(event), flush=True)


def _serve(connection: socket.socket, script: dict[str, list[Answer]]) -> None:
    with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
        request = stream.readline().decode("latin-1").split()
        if not request:
            return
        headers = dict(_headers(stream))
        body = stream.read(int(headers.get("content-length", 0)))
        route = f"{request[0]} {request[1]}"
        _report(request=route, body=body.decode("utf-8", "replace"), headers=headers)
        answers = script.get(route, [reply("404 page not found", 404)])
        _answer(connection, answers.pop(0) if len(answers) > 1 else answers[0], route)


def _headers(stream: Any) -> Iterator[tuple[str, str]]:
    while line := stream.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def _answer(connection: socket.socket, answer: Answer, route: str) -> None:
    if "raw" in answer:
        connection.sendall(answer["raw"].encode("latin-1"))
        return
    status = answer["status"]
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    for name, value in answer.get("headers", {}).items():
        head += f"{name}: {value}\r\n"
    if "lines" not in answer:
        data = answer["body"].encode()
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return
    connection.sendall(f"{head}Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for line in answer["lines"]:
        data = line.encode() + b"\n"
        connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    match answer["end"]:
        case "whole":
            connection.sendall(b"0\r\n\r\n")
        case "cut":
            connection.sendall(b'40\r\n{"half":')
        case "held":
            select.select([connection], [], [])
            _report(hangup=route)


def command_environment(home: Path, host: str, **variables: str) -> dict[str, str]:
    """The environment of a person at home in `home`, whose server is at `host`."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "TMPDIR", "LD_LIBRARY_PATH")}
    fixed = {"HOME": str(home), "OLLAMA_HOST": host, "LANG": "C.UTF-8", "TZ": "UTC"}
    return {**kept, **fixed, "CORRAL_STATE": str(home / "state"), **variables}


if __name__ == "__main__":
    _main()
