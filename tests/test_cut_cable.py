"""Another server whose cable is cut amid an answer. Its machine and Corral's are network namespaces of this one.

Run as a program, this file is that server: it begins each answer, and says no more.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT, environment
from tests.namespaces import STRANGER, Pair, two_machines
from tests.test_upstreams import configured

PORT = 8000
BEGINNING = json.dumps({"choices": [{"index": 0, "delta": {"content": "One "}}]})


@contextlib.contextmanager
def running(command: list[str], variables: dict[str, str], log: Path, sign: str) -> Iterator[None]:
    """A program that has said its sign."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        while sign not in log.read_text():
            assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def front(pair: Pair, folder: Path) -> Iterator[dict[str, str]]:
    """A Corral whose model `m` is on the other machine; gives the environment of its user."""
    settings = configured(folder, {"m": [{"url": f"http://{STRANGER}:{PORT}"}]})
    variables = environment(folder, "127.0.0.1:11434", {"CORRAL_CONFIG": settings, "CORRAL_SPARE_WORKER": "0"})
    other = pair.command(pair.stranger, sys.executable, "-m", "tests.test_cut_cable")
    ours = pair.command(pair.server, sys.executable, "-m", "corral", "serve")
    with (
        running(other, {**variables, "PYTHONPATH": str(ROOT)}, folder / "other.log", "ready"),
        running(ours, variables, folder / "front.log", "Listening on "),
    ):
        yield variables


def test_a_cable_that_is_cut_amid_an_answer_ends_it_with_an_error(tmp_path: Path) -> None:
    with two_machines() as pair, front(pair, tmp_path) as variables:
        command = pair.command(pair.server, sys.executable, "-m", "corral", "run", "m", "hello")
        asking = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert asking.stdout is not None
        assert asking.stdout.read(3) == b"One", (tmp_path / "front.log").read_text()
        pair.cut()
        _, errors = asking.communicate(timeout=60)
        assert asking.returncode != 0
        sentence = f'upstream "{STRANGER}:{PORT}" cannot be reached any more: its machine does not answer'
        assert sentence in errors.decode()


def answer(connection: socket.socket) -> None:
    """Of each request the beginning."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (more := connection.recv(1 << 16)):
            return
        request += more
    if request.startswith(b"POST"):
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        connection.sendall(f"{head}data: {BEGINNING}\n\n".encode())
        while connection.recv(1 << 16):
            pass
    connection.close()


def main() -> None:
    with socket.create_server((STRANGER, PORT)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
