"""A server of OpenAI's API that answers as the name of the model says: well, or as no honest server would.

It runs in a test's own process and keeps what it was asked.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.http_servers import serving

WORDS = ["One", " two", " three"]
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 8},
}


class FakeUpstream(ThreadingHTTPServer):
    """`requests`: path, headers and body of each; `failing`: the status of every answer but lists, 0: none fails.

    `lists`: how it answers `/v1/models`; `shows`: how `/api/show`, by the name of the model, and `/props`, by no name.
    It has no such route where nothing is there.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.failing = 0
        self.lists: Behaviour = listing(USUAL_MODEL)
        self.shows: dict[str, Behaviour] = {}
        self.probed = threading.Event()
        """Set when somebody has asked whether it works."""
        self.may_be_probed = threading.Event()
        """While it is not set, nobody is answered who asks whether it works."""
        self.may_be_probed.set()
        self.probes = self.most_probes = 0
        """How many ask whether it works, and how many did at once at most."""
        self.lock = threading.Lock()
        self.left = threading.Event()
        """Set when a client has gone amid an endless answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def asked(self, path: str = "/v1/chat/completions") -> list[Any]:
        """The bodies that came to a path."""
        return [body for asked, _, body in self.requests if asked == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go in the middle on purpose."""


@contextmanager
def fake_upstream() -> Iterator[FakeUpstream]:
    with serving(FakeUpstream()) as server:
        yield server


def dead_url() -> str:
    """An address at which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeUpstream

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        with suppress(ConnectionError):
            if self.path == "/health":
                self._probe()
            elif self.path == "/v1/models":
                self.server.lists(self, None)
            elif self.path == "/props":
                self.server.shows.get("", _no_route)(self, None)
            else:
                _no_route(self, None)

    def _probe(self) -> None:
        server = self.server
        server.probed.set()
        with server.lock:
            server.probes += 1
            server.most_probes = max(server.most_probes, server.probes)
        server.may_be_probed.wait(60)
        with server.lock:
            server.probes -= 1
        self.whole({"status": "ok"}, server.failing or 200)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        with suppress(ConnectionError):
            if self.path == "/api/show":
                self.server.shows.get(body["model"], _no_route)(self, body)
            elif self.server.failing:
                self.whole({"error": {"message": "out of order"}}, self.server.failing)
            elif self.path == "/v1/embeddings":
                _EMBEDDINGS.get(body["model"], _vectors)(self, body)
            elif self.path == "/v1/completions":
                _text(self, body)
            else:
                _CHATS[body["model"]](self, body)

    def whole(self, value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """The head of a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def event(self, value: Any) -> None:
        self.send(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n")

    def delta(self, finish: str | None = None, **delta: Any) -> None:
        self.event({"model": "other", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def end(self, usage: Any = USAGE, finish: str = "stop", **more: Any) -> None:
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish, **more}]})
        if usage is not None:
            self.event({"choices": [], "usage": usage})
        self.event("[DONE]")
        self.send("")


Behaviour = Callable[[_Handler, Any], None]


def _no_route(handler: _Handler, body: Any) -> None:
    handler.whole({"detail": "Not Found"}, 404)


def _good(handler: _Handler, body: Any) -> None:
    handler.begin()
    handler.delta(role="assistant", content="")
    for word in WORDS:
        handler.delta(content=word)
    handler.end()


def _saying(*deltas: dict[str, Any], usage: Any = USAGE, finish: str = "stop", **more: Any) -> Behaviour:
    def answer(handler: _Handler, body: Any) -> None:
        handler.begin()
        for delta in deltas:
            handler.delta(**delta)
        handler.end(usage, finish, **more)

    return answer


def whole(value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Behaviour:
    return lambda handler, body: handler.whole(value, status, kind, **headers)


def listing(*models: Any) -> Behaviour:
    """A list of these models."""
    return whole({"object": "list", "data": list(models)})


USUAL_MODEL = {"id": "good", "object": "model", "created": 1700000000, "owned_by": "vllm", "max_model_len": 4096}


def _sending(*texts: str) -> Behaviour:
    """A stream of these bytes, and its end."""

    def answer(handler: _Handler, body: Any) -> None:
        handler.begin()
        for text in texts:
            handler.send(text)
        handler.send("")

    return answer


def _endless(handler: _Handler, body: Any) -> None:
    handler.begin()
    try:
        while True:
            handler.delta(content="again ")
    except ConnectionError:
        handler.server.left.set()
        raise


def _drips(handler: _Handler, body: Any) -> None:
    """Comments and empty events without end, and not a word."""
    handler.begin()
    while True:
        handler.send(": keep-alive\n\n")
        handler.event({"choices": []})
        time.sleep(0.05)


def _keyed(handler: _Handler, body: Any) -> None:
    """Wants the key that came after the first one."""
    if handler.headers["authorization"] == "Bearer second-secret":
        _good(handler, body)
    else:
        handler.whole({"error": {"message": "the key has expired"}}, 401)


def _silent(handler: _Handler, body: Any) -> None:
    handler.rfile.read(1)


def _silent_amid(handler: _Handler, body: Any) -> None:
    handler.begin()
    handler.delta(content=WORDS[0])
    handler.rfile.read(1)


def _cut(handler: _Handler, body: Any) -> None:
    handler.begin()
    handler.delta(content=WORDS[0])
    handler.connection.shutdown(socket.SHUT_RDWR)


def _cut_at_once(handler: _Handler, body: Any) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def _no_http(handler: _Handler, body: Any) -> None:
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")
    handler.connection.shutdown(socket.SHUT_RDWR)


def _windows(handler: _Handler, body: Any) -> None:
    """Lines as some servers end them, without a blank behind the colon, with comments, cut in the middle."""
    handler.begin()
    for word in WORDS:
        event = json.dumps({"choices": [{"index": 0, "delta": {"content": word}}]})
        text = f": ping\r\nevent: message\r\ndata:{event}\r\n\r\n"
        handler.send(text[:30])
        handler.send(text[30:])
    handler.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": USAGE})
    handler.send("data: [DONE]\r\n\r\n")
    handler.send("")


def _call(index: int | None, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {**place, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


_CHATS: dict[str, Behaviour] = {
    "good": _good,
    "windows": _windows,
    "reasoning_content": _saying({"reasoning_content": "Hm."}, {"content": "Yes."}),
    "reasoning": _saying({"reasoning": "Hm."}, {"content": "Yes."}),
    "tags": _saying({"content": "<thi"}, {"content": "nk>Hm."}, {"content": "</think>\n\nYes"}, {"content": "."}),
    "calls": _saying(
        {"tool_calls": [_call(0, "call_a", "add", '{"a": ')]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {"tool_calls": [_call(1, "call_b", "add", '{"a": 2}')]},
        finish="tool_calls",
    ),
    "calls numbered 0": _saying(
        {"tool_calls": [_call(0, "call_a", "add", '{"a": 1}')]},
        {"tool_calls": [_call(0, "call_b", "add", '{"a": 2}')]},
        finish="tool_calls",
    ),
    "calls in text": _saying({"content": '{"name": "add", '}, {"content": '"arguments": {"a": 1}}'}),
    "cut call": _saying({"tool_calls": [_call(0, "call_a", "add", '{"a": ')]}, finish="length"),
    "stop word": _saying({"content": "One"}, stop_reason="END"),
    "no usage": _saying({"content": "One"}, {"content": " two"}, usage=None),
    "negative counts": _saying(
        {"content": "One"},
        usage={"prompt_tokens": -5, "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": -3}},
    ),
    "huge counts": _saying(
        {"content": "One"},
        usage={"prompt_tokens": 10**15, "completion_tokens": 10**9, "prompt_tokens_details": {"cached_tokens": 10**15}},
    ),
    "counts as text": _saying({"content": "One"}, usage={"prompt_tokens": "many"}),
    "too large a count": _saying({"content": "One"}, usage={"prompt_tokens": 10**40}),
    "html": whole("<html><body>Welcome</body></html>", kind="text/html"),
    "html stream": _sending("<html><body>Welcome\n\n</body></html>\n\n"),
    "plain json": whole({"choices": [{"message": {"content": "One"}}]}),
    "wrong json": _sending("data: {'choices': [\n\n"),
    "wrong types": _sending('data: {"choices": [{"delta": {"content": 5}}]}\n\n'),
    "deep json": _sending("data: " + "[" * 100_000 + "\n\n"),
    "no end": _sending('data: {"choices": [{"delta": {"content": "One"}}]}\n\n'),
    "nothing": _sending("data: [DONE]\n\n"),
    "long line": _sending(*["x" * (1 << 16)] * 20),
    "long event": _sending(*["data: " + "x" * (1 << 15) + "\n"] * 40),
    "error event": _sending('data: {"error": {"message": "out of memory", "code": 500}}\n\n'),
    "error amid": _sending(
        'data: {"choices": [{"delta": {"content": "One"}}]}\n\n', 'data: {"error": {"message": "out of memory"}}\n\n'
    ),
    "redirect": whole("", 307, location="http://127.0.0.1:1/elsewhere"),
    "401": whole({"error": {"message": "Incorrect API key provided: secret-of-ours"}}, 401),
    "403": whole("no", 403),
    "keyed": _keyed,
    "busy": whole({"error": {"message": "too many"}}, 429, retry_after="30"),
    "404": whole({"error": {"message": "The model `x` does not exist."}}, 404),
    "429": whole({"error": {"message": "slow down"}}, 429, retry_after="1"),
    "400": whole({"object": "error", "message": "maximum context length is 4096 tokens, not secret-of-ours"}, 400),
    "500": whole("<html>Internal Server Error</html>", 500, "text/html"),
    "503": whole({"detail": "no worker"}, 503),
    "endless": _endless,
    "drips": _drips,
    "silent": _silent,
    "silent amid": _silent_amid,
    "cut": _cut,
    "cut at once": _cut_at_once,
    "no http": _no_http,
}
BEHAVIOURS = tuple(_CHATS)


def _text(handler: _Handler, body: Any) -> None:
    handler.begin()
    for word in WORDS:
        logprobs = {"tokens": [word], "token_logprobs": [-0.5], "top_logprobs": [{word: -0.5, " four": -1.5}]}
        handler.event({"choices": [{"index": 0, "text": word, "logprobs": logprobs if body.get("logprobs") else None}]})
    handler.event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": USAGE})
    handler.event("[DONE]")
    handler.send("")


def _vectors(handler: _Handler, body: Any) -> None:
    data = [{"index": place, "embedding": [3.0, 4.0]} for place in reversed(range(len(body["input"])))]
    handler.whole({"data": data, "usage": {"prompt_tokens": 7}})


_EMBEDDINGS: dict[str, Behaviour] = {
    "too few": whole({"data": [{"index": 0, "embedding": [1.0]}]}),
    "twice": whole({"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}),
    "uneven": whole({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]}),
    "no numbers": whole({"data": [{"index": 0, "embedding": [None]}, {"index": 1, "embedding": [1.0]}]}),
    "html": whole("<html></html>", kind="text/html"),
    "401": whole({"error": {"message": "secret-of-ours"}}, 401),
}
LYING_VECTORS = tuple(_EMBEDDINGS)
