"""What a stranger on another machine can do with a server on every address: nothing, without a key.

Both machines are network namespaces of this one. The stranger's requests are made by this file, run as a program there.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.access.file import KeyFile
from corral.access.keys import Wish
from tests.conftest import FAKE_ENGINE, ROOT, WATCHED, add_model, environment
from tests.namespaces import SERVER, STRANGER, Pair, two_machines

PORT = 11434


@pytest.fixture(scope="module")
def machines() -> Iterator[Pair]:
    with two_machines() as pair:
        yield pair


class Reached:
    """A server on every address of its machine, and a stranger on the other."""

    def __init__(self, pair: Pair, home: Path, **variables: str) -> None:
        self.pair, self.home = pair, home
        more = {"CORRAL_ENGINE": str(FAKE_ENGINE), "CORRAL_SPARE_WORKER": "0", "OLLAMA_HOST": f"0.0.0.0:{PORT}"}
        self.environment = environment(home, "", {**more, **WATCHED, **variables})
        self.log = home / "serve.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                pair.command(pair.server, sys.executable, "-m", "corral", "serve"),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while "Listening on " not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()

    def stranger(self, *words: str) -> Any:
        """What this file, run as a program on the other machine, finds."""
        command = self.pair.command(self.pair.stranger, sys.executable, __file__, *words)
        done = subprocess.run(
            command, env={**self.environment, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def here(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command on the server's machine, by its user."""
        command = self.pair.command(self.pair.server, sys.executable, "-m", "corral", *words)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture
def home(tmp_path: Path, tiny_gguf: Path) -> Path:
    add_model(tmp_path / ".ollama" / "models", "fake", tiny_gguf)
    return tmp_path


def test_a_stranger_can_do_nothing_without_a_key(machines: Pair, home: Path) -> None:
    reached = Reached(machines, home)
    try:
        asked = reached.here("run", "fake", "Hi !tokens=2")  # whose worker listens from now on
        assert (asked.returncode, asked.stdout.strip()) == (0, "w1 w2"), asked.stderr
        listening = listening_ports(reached)
        assert len(listening) == 2  # the server and the worker
        assert reached.stranger("scan") == [PORT]
        statuses: dict[str, int] = reached.stranger("every-route")
        assert len(statuses) > 45
        opened = {route: status for route, status in statuses.items() if status != 401}
        assert opened == {"GET /": 200, "HEAD /": 200}
        assert reached.here("list").stdout.count("fake:latest") == 1  # nothing was deleted
        secret = (home / ".ollama" / "corral-key").read_text().strip()
        assert secret not in reached.log.read_text()
        assert reached.stranger("tags", secret) == [200, ["fake:latest"]]
        _, other = KeyFile(home / ".ollama").add(Wish(name="none", models=("nothing",)))
        assert reached.stranger("tags", other) == [200, []]
        assert STRANGER in reached.log.read_text()
    finally:
        reached.close()


def test_who_wants_no_keys_is_told_aloud_what_that_means(machines: Pair, home: Path) -> None:
    reached = Reached(machines, home, CORRAL_INSECURE_NO_AUTH="1")
    try:
        assert "NO KEY IS ASKED FOR: everyone who reaches 0.0.0.0:11434" in reached.log.read_text()
        assert reached.stranger("tags", "") == [200, ["fake:latest"]]
        assert not (home / ".ollama" / "corral-keys.json").exists()
    finally:
        reached.close()


def listening_ports(reached: Reached) -> set[int]:
    """The TCP ports that anything on the server's machine listens at."""
    done = subprocess.run(
        reached.pair.command(reached.pair.server, "cat", "/proc/net/tcp"), capture_output=True, text=True, check=True
    )
    return {int(found[1], 16) for found in re.finditer(r": [0-9A-F]{8}:([0-9A-F]{4}) \S+ 0A ", done.stdout)}


def scan() -> list[int]:
    """The ports of the server's machine that a connection can be made to. All of them are tried."""
    found = []
    for port in range(1, 65536):
        with socket.socket() as probe:
            probe.settimeout(5)
            if probe.connect_ex((SERVER, port)) == 0:
                found.append(port)
    return found


def every_route() -> dict[str, int]:
    """The status of each operation of the API's document, asked without a key."""
    from corral.server.http.openapi import document
    from corral.server.serve import ROUTES

    found = {}
    for path, operations in document(ROUTES)["paths"].items():
        for method in operations:
            filled = path.replace("{digest}", "sha256:" + "0" * 64).replace("{id}", "x").replace("{name}", "fake")
            found[f"{method.upper()} {path}"] = status(method.upper(), filled, {"model": "fake"})
    return found


def status(method: str, path: str, body: Any) -> int:
    connection = http.client.HTTPConnection(SERVER, PORT, timeout=30)
    connection.request(method, path, json.dumps(body), {"x-forwarded-for": "127.0.0.1", "host": "127.0.0.1"})
    answer = connection.getresponse().status
    connection.close()
    return answer


def tags(secret: str) -> list[Any]:
    connection = http.client.HTTPConnection(SERVER, PORT, timeout=30)
    connection.request("GET", "/api/tags", headers={"authorization": f"Bearer {secret}"} if secret else {})
    response = connection.getresponse()
    return [response.status, [model["name"] for model in json.loads(response.read()).get("models", [])]]


if __name__ == "__main__":
    os.environ.pop("OLLAMA_API_KEY", None)
    found: Any = (
        scan() if sys.argv[1] == "scan" else every_route() if sys.argv[1] == "every-route" else tags(sys.argv[2])
    )
    print(json.dumps(found))
