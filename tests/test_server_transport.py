"""The server below its routes: methods, paths, origins, hosts, bodies (spec api §1, §2)."""

import contextlib
import hashlib
import http.client
import json
import resource
import socket
from collections.abc import AsyncGenerator, Iterator

import pytest
from starlette.responses import Response
from starlette.types import Message, Scope

from corral.errors import CorralError
from corral.server.http.dialect import Dialect, set_dialect
from corral.server.http.streaming import NDJSON, Stream
from tests.asking import ask, post
from tests.commands import Shell
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model, running_server
from tests.tiny_models import tiny_llama


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("transport")
    add_model(work / "home" / ".ollama" / "models", "fake", tiny_llama(work / "fake.gguf"))
    with running_server(work / "home", CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_ORIGINS="https://app.example") as server:
        yield server


def test_liveness(server: RunningServer) -> None:
    answer = ask(server, "GET", "/")
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_head_where_it_is_registered(server: RunningServer, path: str) -> None:
    got, head = ask(server, "GET", path), ask(server, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == str(len(got.body))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/api/ps"),
        ("HEAD", "/api/status"),
        ("GET", "/api/generate"),
        ("PUT", "/api/chat"),
        ("POST", "/api/tags"),
        ("POST", "/api/delete"),
        ("DELETE", "/"),
        ("OPTIONS", "/api/tags"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(server: RunningServer, method: str, path: str) -> None:
    answer = ask(server, method, path)
    assert answer.status == 405
    assert answer.headers["content-type"].startswith("text/plain")
    assert method not in answer.headers["allow"]
    assert answer.body == (b"" if method == "HEAD" else b"405 method not allowed")


@pytest.mark.parametrize(
    "path",
    ["/nope", "/api", "/api/chat/x", "/API/tags", "/v1/unknown", "/../etc", "/nope/", "//evil.example/"],
)
def test_an_unknown_path_is_404_in_plain_text(server: RunningServer, path: str) -> None:
    answer = ask(server, "GET", path)
    assert (answer.status, answer.body) == (404, b"404 page not found")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("POST", "/api/chat/", 307, "/api/chat"),
        ("GET", "//api//tags", 301, "/api/tags"),
        ("POST", "//api/chat", 301, "/api/chat"),
        ("GET", "/api/../x/.././api/tags", 301, "/api/tags"),
        ("GET", "/../api/tags/", 301, "/api/tags"),
        ("GET", "/api/tags/?a=1&b=%20", 301, "/api/tags?a=1&b=%20"),
        ("GET", "//api/blobs/a%0d%0aX-Evil:%201/", 301, "/api/blobs/a%0D%0AX-Evil%3A%201"),
        ("GET", "/api/blobs/%22%3E%3Cscript%3E/", 301, "/api/blobs/%22%3E%3Cscript%3E"),
        ("GET", "/api/blobs/%E2%82%AC/", 301, "/api/blobs/%E2%82%AC"),
    ],
)
def test_an_untidy_path_is_redirected_to_the_tidy_one(
    server: RunningServer, method: str, path: str, status: int, location: str
) -> None:
    answer = ask(server, method, path)
    assert (answer.status, answer.headers["location"]) == (status, location)
    assert "x-evil" not in answer.headers
    assert b"<script>" not in answer.body


def origin_of(answer: object) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith(("access-", "vary"))}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost", "https://localhost", "http://localhost:3000", "http://127.0.0.1:8", "https://0.0.0.0:1"),
        *("app://obsidian.md", "file://", "tauri://localhost", "vscode-webview://abc", "https://app.example"),
    ],
)
def test_an_allowed_origin_is_granted(server: RunningServer, origin: str) -> None:
    answer = ask(server, "GET", "/api/version", headers={"Origin": origin})
    assert answer.status == 200
    assert origin_of(answer) == {"vary": "Origin", "access-control-allow-origin": origin}


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://localhost.evil.example", "https://app.example.evil", "null", "localhost"),
        *("http://xlocalhost", "ftp://localhost", "https://APP.example", "http://app.example"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/api/delete"), ("OPTIONS", "/"), ("GET", "/no")])
def test_a_strange_origin_is_refused_before_anything_else(
    server: RunningServer, origin: str, method: str, path: str
) -> None:
    answer = ask(server, method, path, headers={"Origin": origin})
    assert (answer.status, answer.body, origin_of(answer)) == (403, b"", {})


def test_the_same_origin_needs_no_grant(server: RunningServer) -> None:
    for scheme in ("http", "https"):
        answer = ask(server, "GET", "/api/version", headers={"Origin": f"{scheme}://{server.host}"})
        assert (answer.status, origin_of(answer)) == (200, {})
    assert origin_of(ask(server, "GET", "/api/version")) == {}


def test_preflight(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=30)
    connection.request("OPTIONS", "/api/chat", headers={"Origin": "http://localhost:1"})
    response = connection.getresponse()
    headers = [(name.lower(), value) for name, value in response.getheaders()]
    assert (response.status, response.read()) == (204, b"")
    assert [value for name, value in headers if name == "vary"] == [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
    ]
    named = dict(headers)
    assert named["access-control-allow-origin"] == "http://localhost:1"
    assert named["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert named["access-control-max-age"] == "43200"
    assert named["access-control-allow-headers"] == (
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,"
        "X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
        "X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,"
        "X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout,"
        "X-Api-Key,Anthropic-Version,Anthropic-Beta,Anthropic-Dangerous-Direct-Browser-Access"
    )
    assert "access-control-allow-credentials" not in named
    connection.close()


def test_errors_carry_the_grant_too(server: RunningServer) -> None:
    answer = ask(server, "GET", "/nope", headers={"Origin": "http://localhost"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (404, "http://localhost")


def test_everybody_may_call_when_the_settings_say_so(start_server: StartServer) -> None:
    server = start_server(OLLAMA_ORIGINS="*")
    answer = ask(server, "GET", "/api/version", headers={"Origin": "https://evil.example"})
    assert (answer.status, origin_of(answer)) == (200, {"access-control-allow-origin": "*"})


def with_host(server: RunningServer, host: str, method: str = "GET") -> int:
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        raw.sendall(f"{method} /api/version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        return int(raw.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:99", "127.0.0.1", "127.8.8.8:1", "[::1]:11434", "0.0.0.0", "192.168.7.7", "10.0.0.1"),
        *("my.localhost", "printer.local", "host.docker.internal", "[fd00::1]", ""),
        socket.gethostname(),
    ],
)
def test_a_near_host_name_passes(server: RunningServer, host: str) -> None:
    assert with_host(server, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:11434", "8.8.8.8", "[2001:4860:4860::8888]:1", "localhost.evil.example"),
        *("127.0.0.1.evil.example", "evillocal", "a b", "[::1", "[]", "127.0.0.1@evil.example", "localhost."),
    ],
)
def test_a_strange_host_name_is_refused(server: RunningServer, host: str) -> None:
    """DNS rebinding: a page of a foreign name that resolves to this machine gets nothing."""
    assert with_host(server, host) in (403, 400)
    assert with_host(server, host, "OPTIONS") in (403, 400)


def test_options_for_a_near_name_is_answered_by_the_guard(server: RunningServer) -> None:
    assert with_host(server, "localhost", "OPTIONS") == 204
    assert with_host(server, "127.0.0.1", "OPTIONS") == 405


def test_localhost_means_the_address_that_clients_take_it_for(start_server: StartServer) -> None:
    assert start_server(OLLAMA_HOST="localhost:0").url.startswith("http://127.0.0.1:")


def test_no_host_is_refused_when_everybody_is_served(start_server: StartServer) -> None:
    server = start_server(CORRAL_INSECURE_NO_AUTH="1", OLLAMA_HOST="0.0.0.0:0")
    local = RunningServer(server.url.replace("0.0.0.0", "127.0.0.1"), server.home, server.process, server.log)
    assert with_host(local, "any.example") == 200


@pytest.mark.parametrize("host", [":0", "http://:0"])
def test_a_port_alone_is_served_on_every_interface(start_server: StartServer, host: str) -> None:
    server = start_server(CORRAL_INSECURE_NO_AUTH="1", OLLAMA_HOST=host)
    port = server.url.rsplit(":", 1)[1]
    assert server.url == (f"http://[::]:{port}" if socket.has_dualstack_ipv6() else f"http://0.0.0.0:{port}")
    for address in ("127.0.0.1", "127.0.0.2"):
        local = RunningServer(f"http://{address}:{port}", server.home, server.process, server.log)
        assert with_host(local, "any.example") == 200
    shell = Shell(server.home, f":{port}")
    assert shell.run("list").status == 0
    refused = shell.run("serve")
    assert refused.stderr.splitlines()[-2:] == [
        f"Error: listen tcp :{port}: bind: address already in use",
        "a corral server runs there already; a command may have started it",
    ]


def test_an_origin_that_is_none_keeps_the_server_from_starting(start_server: StartServer) -> None:
    with pytest.raises(AssertionError, match="OLLAMA_ORIGINS"):
        start_server(OLLAMA_ORIGINS="example.com")


def test_a_large_body_is_refused_before_it_is_read(server: RunningServer) -> None:
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        raw.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n\r\n{")
        answer = http.client.HTTPResponse(raw)
        answer.begin()
        assert answer.status == 413
        assert json.load(answer) == {"error": "request body is larger than 268435456 bytes"}


def test_the_content_type_is_not_looked_at(server: RunningServer) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = ask(server, "POST", "/api/show", b'{"model":"fake"}', {"Content-Type": content_type})
        assert answer.status == 200


def test_a_connection_is_kept_for_further_requests(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=30)
    for path in ("/api/version", "/nope", "/api/tags"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.getheader("connection") != "close"
    body = json.dumps({"model": "fake", "prompt": "hello"})
    for _ in range(2):
        connection.request("POST", "/api/generate", body)
        response = connection.getresponse()
        assert len(response.read().splitlines()) == 4
    connection.close()


def test_a_client_that_sends_half_a_body_and_leaves_does_no_harm(server: RunningServer) -> None:
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        raw.sendall(b'POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"model":')
    assert post(server, "/api/generate", {"model": "fake"}).status == 200


def test_a_client_that_sends_a_file_again_and_then_looks_for_the_answer_finds_it(server: RunningServer) -> None:
    data = bytes(8 << 20)
    path = f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
    assert [ask(server, "POST", path, data, {"Connection": "close"}).status for _ in range(2)] == [201, 200]


@contextlib.contextmanager
def open_files(most: int) -> Iterator[None]:
    """This process and what it starts may have so many files open, unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_clients_can_connect_than_a_system_gives_files_unasked(start_server: StartServer) -> None:
    with open_files(256):
        server = start_server()
    address, port = server.host.rsplit(":", 1)
    with open_files(512), contextlib.ExitStack() as stack:
        for _ in range(300):
            raw = stack.enter_context(socket.create_connection((address, int(port)), timeout=30))
            raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert raw.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_offer_of_another_protocol_is_ignored_as_java_expects(server: RunningServer, parts: int) -> None:
    body = b'{"model":"fake","prompt":"hello","stream":false}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n"
    head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n" % (offer, len(body))
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        for _ in range(2):
            cut = {1: (), 2: (len(head),), 3: (10, len(head) + 10)}[parts]
            for begin, end in zip((0, *cut), (*cut, None), strict=True):
                raw.sendall((head + body)[begin:end])
            answer = http.client.HTTPResponse(raw)
            answer.begin()
            assert (answer.status, json.load(answer)["response"]) == (200, "w1 w2 w3 ")


def test_offers_of_another_protocol_in_a_row_are_all_ignored(server: RunningServer) -> None:
    asked = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        raw.sendall(asked * 1500 + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: raw.recv(1 << 16), b""))
    assert received.count(b'{"version":') == 1500
    assert received.endswith(b"Ollama is running")


@pytest.mark.parametrize("endless", [b"GET / HTTP/1.1\r\nX: ", b"GET /"])
def test_a_head_without_end_is_refused(server: RunningServer, endless: bytes) -> None:
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        raw.sendall(endless)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            raw.sendall(b"a" * (64 << 20))
    assert ask(server, "GET", "/").status == 200


@pytest.mark.parametrize("start", [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02", b"GET\r\n\r\n", b"\0" * 100])
def test_what_is_no_http_is_refused(server: RunningServer, start: bytes) -> None:
    address, port = server.host.rsplit(":", 1)
    with socket.create_connection((address, int(port)), timeout=30) as raw:
        raw.sendall(start)
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100)[:12] in (b"HTTP/1.1 400", b"")
    assert ask(server, "GET", "/").status == 200


async def sent_by(lines: AsyncGenerator[bytes, None]) -> list[bytes]:
    """The body a stream of these lines sends."""
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    async def receive() -> Message:
        raise AssertionError

    scope: Scope = {"type": "http", "path": "/"}
    set_dialect(scope, Dialect(lambda error: Response(str(error)), lambda error: f"<{error}>".encode()))
    await Stream(b"zero", lines, bytes, NDJSON)(scope, receive, send)
    return sent


async def test_any_error_in_a_stream_becomes_its_last_line_and_the_source_is_closed() -> None:
    closed: list[type[Exception]] = []

    async def source(error: Exception) -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            raise error
        finally:
            closed.append(type(error))

    assert await sent_by(source(CorralError("known"))) == [b"zero", b"one", b"<known>", b""]
    internal = b"<internal server error, see the log of corral>"
    assert await sent_by(source(ZeroDivisionError())) == [b"zero", b"one", internal, b""]
    assert closed == [CorralError, ZeroDivisionError]
