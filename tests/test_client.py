"""The client of our own server, over a program that answers from a script: as it should, and as no server should."""

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from corral.client import Client, NotRunning
from corral.client.answers import Installed, Running, Version
from corral.client.requests import MAX_LINE
from corral.config.address import parse_address
from corral.errors import BadRequest, Busy, CorralError, Forbidden, NotFound
from corral.messages import Chunk, Message, Metrics, Picture, Progress, ToolCall
from corral.names import Digest
from tests.fake_server import Answer, FakeServer, lines, raw, reply

Serve = Callable[[Mapping[str, Answer | Sequence[Answer]]], tuple[FakeServer, Client]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(routes: Mapping[str, Answer | Sequence[Answer]]) -> tuple[FakeServer, Client]:
            server = stack.enter_context(FakeServer(routes))
            return server, Client(parse_address(server.host))

        yield start


def test_plain_answers_become_values(serve: Serve) -> None:
    tag = {"name": "tiny:latest", "modified_at": "2026-08-21T12:00:00.123456789+02:00", "size": 397, "digest": "ab"}
    loaded = {"name": "tiny:latest", "size": 812, "digest": "ab", "expires_at": "2318-12-03T14:08:14Z", "size_vram": 5}
    server, client = serve(
        {
            "GET /api/version": {**reply({"version": "0.33.0"}), "headers": {"x-corral-version": "0.1.0"}},
            "GET /api/tags": reply({"models": [tag]}),
            "GET /api/ps": reply({"models": [{**loaded, "context_length": 4096}]}),
            "POST /api/embed": reply({"embeddings": [[0.5, 1, -2e-5]]}),
            "POST /api/copy": reply(""),
            "DELETE /api/delete": reply(""),
        }
    )
    assert client.version() == Version("0.33.0", "0.1.0")
    modified = datetime(2026, 8, 21, 10, 0, 0, 123456, UTC)
    assert client.tags() == (Installed("tiny:latest", "ab", 397, modified, remote=False),)
    forever = datetime(2318, 12, 3, 14, 8, 14, tzinfo=UTC)
    assert client.ps() == (Running("tiny:latest", "ab", 812, 5, 4096, forever),)
    assert client.embed("e", ["one"], dimensions=3, truncate=False) == ((0.5, 1, -2e-5),)
    client.copy("a", "b")
    client.delete("a")
    assert server.requests()[3:] == [
        ("POST /api/embed", {"model": "e", "input": ["one"], "truncate": False, "dimensions": 3}),
        ("POST /api/copy", {"source": "a", "destination": "b"}),
        ("DELETE /api/delete", {"model": "a"}),
    ]


def test_what_headers_tell_of_an_answer_comes_with_its_first_chunk(serve: Serve) -> None:
    said = lines({"response": "a", "done": False}, {"response": "b", "done": False})
    headers = {"X-Corral-Truncated-Tokens": "12", "X-Corral-Unenforced": "#/a"}
    wrong = {"x-corral-truncated-tokens": "many"}
    _, client = serve({"POST /api/generate": [{**said, "headers": headers}, {**said, "headers": wrong}]})
    assert list(client.generate("m", "hi")) == [
        Chunk(content="a", truncated_tokens=12, unenforced=("#/a",)),
        Chunk(content="b"),
    ]
    with pytest.raises(CorralError, match='unexpected value of "x-corral-truncated-tokens"'):
        list(client.generate("m", "hi"))


def test_a_completion_is_asked_for_and_read_chunk_by_chunk(serve: Serve) -> None:
    metrics = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 11, "eval_count": 30, "eval_duration": 7}
    server, client = serve(
        {
            "POST /api/generate": lines(
                {"model": "m", "response": "", "thinking": "Hm", "done": False},
                {"model": "m", "response": "Hé", "done": False},
                {"model": "m", "response": "", "done": True, "done_reason": "stop", "context": [1, 2], **metrics},
            )
        }
    )
    chunks = list(
        client.generate("m", "Hi", system="s", images=[b"\x00"], format="json", think="low", keep_alive=float("inf"))
    )
    assert chunks == [
        Chunk(thinking="Hm"),
        Chunk(content="Hé"),
        Chunk(done_reason="stop", metrics=Metrics(**metrics), context=(1, 2)),
    ]
    asked = {"model": "m", "prompt": "Hi", "system": "s", "options": {}, "images": ["AA=="]}
    assert server.requests() == [("POST /api/generate", {**asked, "format": "json", "think": "low", "keep_alive": -1})]


def test_a_conversation_is_sent_whole_and_tool_calls_are_read(serve: Serve) -> None:
    call = {"id": "call_1", "function": {"index": 0, "name": "get", "arguments": {"city": "Oslo"}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    server, client = serve({"POST /api/chat": lines({"message": message, "done": True, "done_reason": "stop"})})
    messages = [
        Message.of("user", "Weather?", media=(Picture(b"\x00"),)),
        Message.of("assistant", thinking="Hm", tool_calls=(ToolCall("get", {"city": "Oslo"}),)),
    ]
    (chunk,) = client.chat("m", messages)
    assert chunk.tool_calls == (ToolCall("get", {"city": "Oslo"}, 0, "call_1"),)
    ((_, body),) = server.requests()
    assert body["messages"] == [
        {"role": "user", "content": "Weather?", "images": ["AA=="]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm",
            "tool_calls": [{"function": {"index": 0, "name": "get", "arguments": {"city": "Oslo"}}}],
        },
    ]


def test_jobs_tell_their_progress(serve: Serve) -> None:
    steps = [
        {"status": "pulling manifest"},
        {"status": "pulling 6e4c38e1172f", "digest": "sha256:6e4c", "total": 10, "completed": 4},
        {"status": "success"},
    ]
    whole = lines(*steps)
    routes = ("pull", "push", "create", "export", "import")
    server, client = serve({f"POST /api/{route}": whole for route in routes})
    expected = [
        Progress("pulling manifest"),
        Progress("pulling 6e4c38e1172f", "sha256:6e4c", 10, 4),
        Progress("success"),
    ]
    assert list(client.pull("m", source="file:///m.gguf", insecure=True)) == expected
    assert list(client.push("m")) == expected
    assert list(client.create("m", {"from": "tiny"})) == expected
    assert list(client.export(["a", "b"], Path("/tmp/x.tar"))) == expected
    assert list(client.import_(Path("/tmp/x.tar"), "a")) == expected
    assert [body for _, body in server.requests()] == [
        {"model": "m", "insecure": True, "source": "file:///m.gguf"},
        {"model": "m", "insecure": False},
        {"from": "tiny", "model": "m"},
        {"models": ["a", "b"], "path": "/tmp/x.tar"},
        {"path": "/tmp/x.tar", "model": "a"},
    ]


def test_blobs_are_looked_for_and_uploaded(serve: Serve) -> None:
    digest = Digest(hashlib.sha256(b"some bytes").hexdigest())
    path = f"/api/blobs/{digest}"
    server, client = serve({f"HEAD {path}": [reply("", 404), reply("")], f"POST {path}": reply("", 201)})
    assert not client.has_blob(digest)
    sent: list[int] = []
    client.add_blob(digest, 10, [b"some ", b"bytes"], sent.append)
    assert sent == [5, 10]
    assert client.has_blob(digest)
    server.close()
    assert [event["body"] for event in server.events if event.get("request", "").startswith("POST")] == ["some bytes"]


def test_closing_a_stream_hangs_up(serve: Serve) -> None:
    server, client = serve({"POST /api/generate": lines({"response": "a", "done": False}, end="held")})
    with closing(client.generate("m", "Hi")) as chunks:
        assert next(chunks).content == "a"
    assert server.wait_for("hangup") == {"hangup": "POST /api/generate"}


def test_no_server_is_an_error_of_its_own() -> None:
    with socket.socket() as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        client = Client(parse_address(f"127.0.0.1:{taken.getsockname()[1]}"), "ollama")
        with pytest.raises(NotRunning) as caught:
            client.ping()
    assert str(caught.value) == "could not connect to ollama server, run 'ollama serve' to start it"


def test_an_unspecified_address_means_this_machine(serve: Serve) -> None:
    server, _ = serve({"GET /api/version": reply({"version": "1"})})
    assert Client(parse_address(f"0.0.0.0:{server.port}")).version().ollama == "1"


def test_the_path_of_the_address_goes_before_every_route(serve: Serve) -> None:
    server, _ = serve({"GET /behind/proxy/api/version": reply({"version": "1"})})
    assert Client(parse_address(f"http://{server.host}/behind/proxy/")).version().ollama == "1"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequest), (403, Forbidden), (404, NotFound), (500, CorralError), (503, Busy)]
)
def test_an_errors_kind_follows_its_status(serve: Serve, status: int, kind: type[CorralError]) -> None:
    _, client = serve({"GET /api/tags": reply({"error": "it is so"}, status)})
    with pytest.raises(CorralError) as caught:
        client.tags()
    assert (type(caught.value), str(caught.value)) == (kind, "it is so")


SPOKEN = [
    (reply({"error": "no such thing"}, 404), "no such thing", "404 Not Found: no such thing"),
    (reply("404 page not found", 404), "404 page not found", "404 Not Found: 404 page not found"),
    (reply({"error": {"message": "as OpenAI says it"}}, 500), "as OpenAI says it", None),
    (reply("", 500), "something went wrong, please see the corral server logs for details", None),
    (reply({"error": ""}, 500), "something went wrong, please see the corral server logs for details", None),
    (reply("[" * 100_000, 500), "[" * 2000, None),
]


@pytest.mark.parametrize(("answer", "plain", "streamed"), SPOKEN)
def test_error_bodies_become_sentences(serve: Serve, answer: Answer, plain: str, streamed: str | None) -> None:
    _, client = serve({"GET /api/tags": answer, "POST /api/generate": answer})
    with pytest.raises(CorralError) as caught:
        client.tags()
    assert str(caught.value) == plain
    with pytest.raises(CorralError) as caught:
        list(client.generate("m"))
    assert str(caught.value) == (streamed or f"500 Internal Server Error: {plain}")


@pytest.mark.parametrize("error", ["the engine died", {"message": "the engine died"}])
def test_an_error_line_in_a_stream_is_raised_as_a_sentence(serve: Serve, error: Any) -> None:
    _, client = serve({"POST /api/generate": lines({"response": "a", "done": False}, {"error": error})})
    chunks = client.generate("m", "Hi")
    assert next(chunks).content == "a"
    with pytest.raises(CorralError, match=r"\Athe engine died\Z"):
        next(chunks)


def test_an_error_line_whose_error_is_an_object_is_raised_with_its_message(serve: Serve) -> None:
    _, client = serve({"POST /api/pull": [lines({"error": {"message": "no room"}}), lines({"error": {"code": 7}})]})
    for sentence in ("no room", '{"code": 7}'):
        with pytest.raises(CorralError) as caught:
            list(client.pull("m"))
        assert str(caught.value) == sentence


def test_a_server_that_never_answers_a_quick_question_is_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.client.ANSWER_SECONDS", 0.1)
    held = lines(end="held")
    _, client = serve({"GET /api/tags": held, "GET /api/ps": held, "GET /api/requests": held, "POST /api/copy": held})
    for call in (client.tags, client.ps, client.explain, lambda: client.copy("a", "b")):
        with pytest.raises(CorralError, match=r"^no answer from \"http://127.0.0.1:\d+\" within 0.1 seconds$"):
            call()


def test_a_job_that_ends_without_success_has_failed(serve: Serve) -> None:
    _, client = serve({"POST /api/pull": lines({"status": "pulling manifest"})})
    with pytest.raises(CorralError, match="ended its answer before the job was done"):
        list(client.pull("m"))


def test_a_stream_that_breaks_off_is_an_error(serve: Serve) -> None:
    _, client = serve({"POST /api/generate": lines({"response": "a", "done": False}, end="cut")})
    chunks = client.generate("m", "Hi")
    assert next(chunks).content == "a"
    with pytest.raises(CorralError, match="the corral server broke off its answer"):
        next(chunks)


def test_an_answer_shorter_than_announced_is_an_error(serve: Serve) -> None:
    _, client = serve({"GET /api/tags": raw('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"models":[]}')})
    with pytest.raises(CorralError, match="the corral server broke off its answer"):
        client.tags()


HOSTILE = [
    ("HTTP/1.1 200 OK\r\n\r\nnot JSON", 'the corral server\'s answer is no JSON: "not JSON"'),
    ("HTTP/1.1 200 OK\r\n\r\n[1,2]", 'the corral server\'s answer is no JSON object: "[1,2]"'),
    ("HTTP/1.1 200 OK\r\n\r\n" + "[" * 100_000, f'the corral server\'s answer is no JSON: "{"[" * 60}…"'),
    ("SSH-2.0-OpenSSH_9.9\r\n", 'what answers at "http://{host}" is no corral server'),
    (
        "HTTP/1.1 404 Nope\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html>Not here</html>",
        'what answers at "http://{host}" is no corral server: it says 404 Not Found',
    ),
    ("", 'what answers at "http://{host}" is no corral server'),
    ("HTTP/1.1 200 OK\r\n" + "X" * 100_000, 'what answers at "http://{host}" is no corral server'),
    ("HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 500 + "\r\n", 'what answers at "http://{host}" is no corral server'),
    ('HTTP/1.1 200 OK\r\n\r\n{"models":7}', 'the server\'s answer is not understood: unexpected value of "models"'),
    ('HTTP/1.1 200 OK\r\n\r\n{"models":[7]}', 'the server\'s answer is not understood: unexpected value of "models"'),
    (
        'HTTP/1.1 200 OK\r\n\r\n{"models":[{"size":"big"}]}',
        'the server\'s answer is not understood: unexpected value of "size"',
    ),
    (
        'HTTP/1.1 200 OK\r\n\r\n{"models":[{"size":true}]}',
        'the server\'s answer is not understood: unexpected value of "size"',
    ),
    (
        'HTTP/1.1 200 OK\r\n\r\n{"models":[{"modified_at":"soon"}]}',
        'the server\'s answer is not understood: unexpected value of "modified_at"',
    ),
    (
        f'HTTP/1.1 200 OK\r\n\r\n{{"models":[{{"size":{1 << 63}}}]}}',
        'the server\'s answer is not understood: unexpected value of "size"',
    ),
    (
        "HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\n\r\n",
        'the server at "http://{host}" has moved to "https://elsewhere/"; set OLLAMA_HOST to that',
    ),
]


@pytest.mark.parametrize(("answer", "sentence"), HOSTILE)
def test_what_no_server_should_say_becomes_a_sentence(serve: Serve, answer: str, sentence: str) -> None:
    server, client = serve({"GET /api/tags": raw(answer)})
    with pytest.raises(CorralError) as caught:
        client.tags()
    assert str(caught.value) == sentence.replace("{host}", server.host)


@pytest.mark.parametrize("answer", [{"version": "0.33.0\x1b[2J"}, {"version": 33}, {"version": "9" * 100}])
def test_a_version_is_letters_and_digits(serve: Serve, answer: dict[str, Any]) -> None:
    _, client = serve({"GET /api/version": reply(answer)})
    with pytest.raises(CorralError, match='unexpected value of "version"'):
        client.version()


@pytest.mark.parametrize(
    "line",
    [
        {"response": 7},
        {"response": "x", "done": "yes"},
        {"response": "x", "tool_calls": [{"function": []}]},
        {"response": "x", "context": ["a"]},
        {"done": True, "eval_count": "many"},
    ],
)
def test_a_chunk_with_members_of_wrong_types_is_refused(serve: Serve, line: dict[str, Any]) -> None:
    _, client = serve({"POST /api/generate": lines(line)})
    with pytest.raises(CorralError, match="the server's answer is not understood: unexpected value of"):
        list(client.generate("m", "Hi"))


def test_a_line_may_have_eight_megabytes_and_no_more(serve: Serve) -> None:
    fits = {"response": "x" * (MAX_LINE - 100), "done": False}
    too_long = {"response": "x" * MAX_LINE, "done": False}
    _, client = serve({"POST /api/generate": lines(fits, too_long)})
    chunks = client.generate("m", "Hi")
    assert len(next(chunks).content) == MAX_LINE - 100
    with pytest.raises(CorralError, match="a line of more than 8 MB"):
        next(chunks)


def test_a_name_that_is_no_utf_8_is_sent_as_question_marks(serve: Serve) -> None:
    server, client = serve({"POST /api/copy": reply("")})
    client.copy("caf\udce9", "b")
    assert server.requests() == [("POST /api/copy", {"source": "caf?", "destination": "b"})]


def test_an_address_that_is_none_is_named(serve: Serve) -> None:
    server, _ = serve({})
    for address in ("http://" + "a" * 70 + ".example", f"http://{server.host}/a b"):
        with pytest.raises(CorralError) as caught:
            Client(parse_address(address)).version()
        assert str(caught.value) == f'invalid address "{parse_address(address)}"'


def test_every_request_says_who_asks_and_for_what(serve: Serve) -> None:
    server, client = serve({"POST /api/show": reply({}), "POST /api/generate": lines({"done": True})})
    client.show("m")
    list(client.generate("m"))
    server.close()
    show, generate = (event["headers"] for event in server.events if "request" in event)
    assert show["user-agent"].startswith("corral/")
    assert (show["content-type"], show["accept"]) == ("application/json", "application/json")
    assert generate["accept"] == "application/x-ndjson"
    assert json.loads(show["content-length"]) > 0
