"""HTTPS by the settings: a real server, real clients, and files that cannot be used."""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ollama
import pytest

from corral.config import Config
from corral.errors import ConfigError
from corral.server.tls import tls_context
from tests.certificates import self_signed
from tests.commands import Shell
from tests.conftest import FAKE_ENGINE, WATCHED, add_model, environment


@contextmanager
def https_server(home: Path, cert: Path, key: Path) -> Iterator[int]:
    """The port of a server that speaks HTTPS."""
    variables = {"CORRAL_TLS_CERT": str(cert), "CORRAL_TLS_KEY": str(key), "CORRAL_ENGINE": str(FAKE_ENGINE)}
    with open(home / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "corral", "serve"],
            env=environment(home, "127.0.0.1:0", {**variables, **WATCHED, "CORRAL_SPARE_WORKER": "0"}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        while not (found := re.search(r"Listening on https://127\.0\.0\.1:(\d+) ", (home / "serve.log").read_text())):
            assert process.poll() is None, (home / "serve.log").read_text()
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[tuple[Path, int, Path]]:
    """A home with the model `fake`, the port of its server, and its certificate."""
    home = tmp_path_factory.mktemp("tls")
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    cert, key = self_signed(home)
    with https_server(home, cert, key) as port:
        yield home, port, cert


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost")


def test_clients_trust_the_certificate_that_they_are_given(secure: tuple[Path, int, Path]) -> None:
    home, port, cert = secure
    shell = Shell(home, f"https://localhost:{port}")
    answered = shell.run("run", "fake", "Hi !tokens=3", SSL_CERT_FILE=str(cert))
    assert (answered.status, answered.stdout.strip()) == (0, "w1 w2 w3"), answered.stderr
    refused = shell.run("list")
    assert refused.status == 1
    assert "certificate verify failed" in refused.stderr
    client = ollama.Client(host=f"https://localhost:{port}", verify=ssl.create_default_context(cafile=str(cert)))
    parts = client.generate("fake", "!tokens=30", stream=True)
    assert "".join(part.response or "" for part in parts).strip() == " ".join(f"w{number}" for number in range(1, 31))


def test_a_stream_an_offer_of_another_protocol_and_a_hang_up_are_as_without(secure: tuple[Path, int, Path]) -> None:
    _, port, cert = secure
    context = ssl.create_default_context(cafile=str(cert))
    body = json.dumps({"model": "fake", "prompt": "!tokens=3"}).encode()
    head = "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    with connected(port, context) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        connection.sendall(body)
        received = b""
        while b'"done":true' not in received:
            received += connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 200 ")
    with connected(port, context) as connection:  # which is closed at once
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    with connected(port, context) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 400_000)  # without end
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_old_versions_and_plain_http_are_refused(secure: tuple[Path, int, Path]) -> None:
    _, port, cert = secure
    old = ssl.create_default_context(cafile=str(cert))
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connected(port, old)
    with socket.create_connection(("127.0.0.1", port), 30) as plain:
        plain.sendall(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"models" not in plain.recv(65536)


def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    _, other = self_signed(tmp_path, "other")
    _, locked = self_signed(tmp_path, "locked", b"passphrase")
    text = tmp_path / "text.pem"
    text.write_text("no PEM")
    torn = tmp_path / "torn.pem"
    torn.write_bytes(cert.read_bytes()[:200])
    for given, sentence in [
        ((cert, other), f'the key in "{other}" is not that of the certificate in "{cert}"'),
        ((cert, locked), "the key is encrypted"),
        ((text, key), f'CORRAL_TLS_CERT: "{text}" is no PEM file'),
        ((torn, key), "are no certificate and its key"),
        ((key, key), "are no certificate and its key"),
        ((cert, tmp_path), f'CORRAL_TLS_KEY: cannot read "{tmp_path}": is a directory'),
    ]:
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            tls_context(Config(tls_cert=str(given[0]), tls_key=str(given[1])))
    outcome = Shell(tmp_path, "127.0.0.1:0").run("serve", CORRAL_TLS_CERT=str(cert), CORRAL_TLS_KEY=str(other))
    assert (outcome.status, "is not that of the certificate" in outcome.stderr) == (1, True)
    assert "Listening" not in outcome.stderr
