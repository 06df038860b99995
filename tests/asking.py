"""Asking a server over a socket of one's own: every byte of the answer, and the connection in hand to break off."""

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.conftest import RunningServer


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def error(self) -> str:
        return str(self.json["error"])


def ask(
    server: RunningServer, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request; `body` is sent as it is when it is bytes, else as JSON."""
    connection = http.client.HTTPConnection(server.host, timeout=60)
    try:
        connection.request(method, path, _encoded(body), headers or {})
        response = connection.getresponse()
        data = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
    finally:
        connection.close()


def post(server: RunningServer, path: str, body: Any) -> Answer:
    return ask(server, "POST", path, body)


def generate(server: RunningServer, prompt: str, model: str = "fake", **more: Any) -> Answer:
    """A whole answer of `/api/generate`."""
    return post(server, "/api/generate", {"model": model, "prompt": prompt, "stream": False, **more})


def _encoded(body: Any) -> bytes | None:
    return body if body is None or isinstance(body, bytes) else json.dumps(body).encode()


class Streaming:
    """A streamed answer that is read line by line, and can be broken off."""

    def __init__(self, server: RunningServer, path: str, body: Any) -> None:
        self._connection = http.client.HTTPConnection(server.host, timeout=60)
        self._connection.request("POST", path, _encoded(body))
        self._response: http.client.HTTPResponse | None = None

    @property
    def status(self) -> int:
        return self._answer().status

    def line(self) -> Any:
        return json.loads(self._answer().readline())

    def rest(self) -> list[Any]:
        return [json.loads(line) for line in self._answer().read().splitlines()]

    def hang_up(self) -> None:
        """Closes the connection at once, answered or not."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        if self._response is not None:
            self._response.close()

    def _answer(self) -> http.client.HTTPResponse:
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response


@contextmanager
def streaming(server: RunningServer, path: str, body: Any) -> Iterator[Streaming]:
    stream = Streaming(server, path, body)
    try:
        yield stream
    finally:
        stream.hang_up()


class InBackground:
    """A call in a thread of its own; `result` waits for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive(), "no answer within a minute"
        if self._error is not None:
            raise self._error
        return self._result


def until(what: Callable[[], bool]) -> None:
    """Asks again and again, as fast as the server answers, until something is so; a minute at most.

    For what a server gives no event of. `FakeEngine.wait` waits for what an engine does, `wait_for_end` for a process.
    """
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not happen within a minute"


def metric(server: RunningServer, name: str) -> float:
    """The sum of a series over its labels, 0 when it has none yet."""
    text = ask(server, "GET", "/metrics").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}(\{{| )", line))


_VARYING = (
    (re.compile(rb'"created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"'), b'"created_at":"T"'),
    (re.compile(rb'"(total|load)_duration":[1-9]\d*'), rb'"\1_duration":N'),
)


def filtered(body: bytes) -> str:
    """An answer with its moments and durations replaced: what is left is the same every time."""
    for pattern, replacement in _VARYING:
        body = pattern.sub(replacement, body)
    return body.decode()
