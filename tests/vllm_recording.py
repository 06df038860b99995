"""What a real vLLM has answered to Corral, and how that is recorded and played.

    python -m tests.vllm_recording http://127.0.0.1:8000

asks a vLLM that serves a model as `tiny` (with `--enable-auto-tool-choice --tool-call-parser hermes`, and a context of
768 tokens), by way of a Corral, and writes `goldens/vllm.json`. What is there was said by vLLM 0.32.0 on a processor,
in 32-bit floats, with a model of random weights.
"""

import http.client
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.asking import Answer, ask
from tests.http_servers import serving

FILE = Path(__file__).parent / "goldens" / "vllm.json"

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0, "num_predict": 12}
SCHEMA = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "paints a wall",
        "parameters": SCHEMA,
    },
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/api/chat", {"messages": HELLO, "options": GREEDY}),
    "chat with log probabilities": (
        "/api/chat",
        {"messages": HELLO, "options": GREEDY, "logprobs": True, "top_logprobs": 2},
    ),
    "raw with log probabilities": (
        "/api/generate",
        {"prompt": "one two", "raw": True, "options": GREEDY, "logprobs": True, "top_logprobs": 2},
    ),
    "stop word": ("/v1/messages", {"messages": HELLO, "max_tokens": 40, "temperature": 0, "stop_sequences": ["o"]}),
    "format": ("/api/chat", {"messages": HELLO, "options": {"temperature": 0}, "format": SCHEMA}),
    "tool": (
        "/v1/chat/completions",
        {
            "messages": HELLO,
            "max_tokens": 80,
            "temperature": 0,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "paint"}},
        },
    ),
    "too long": ("/api/chat", {"messages": [{"role": "user", "content": "hello " * 500}], "stream": False}),
    "unknown": ("/api/chat", {"model": "unknown", "messages": HELLO, "stream": False}),
}
"""What is asked of the Corral in front, by the name of what it shows; of the model `m` unless it says another."""


def asked(server: Any, name: str) -> Answer:
    """The answer of the Corral in front."""
    path, body = CASES[name]
    return ask(server, "POST", path, {"model": "m", **body})


class Stage(ThreadingHTTPServer):
    """Answers as the recording says; where `real` is given it asks that server, and makes the recording of it.

    `exchanges`: what was asked and said: `method`, `path`, `request` (JSON), `status`, `type`, `body` (text).
    """

    daemon_threads = True

    def __init__(self, exchanges: list[dict[str, Any]], real: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.exchanges, self.real = exchanges, real
        self.strange: list[Any] = []
        """What was asked and is not in the recording."""
        self.lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: Stage

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET", None)

    def do_POST(self) -> None:
        self._answer("POST", json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, method: str, request: Any) -> None:
        wanted = {"method": method, "path": self.path, "request": request}
        if self.server.real:
            said = wanted | _really_said(self.server.real, wanted)
            with self.server.lock:
                if said not in self.server.exchanges:
                    self.server.exchanges.append(said)
        else:
            fits = (one for one in self.server.exchanges if wanted.items() <= one.items())
            said = next(fits, {"status": 599, "type": "text/plain", "body": ""})
            if said["status"] == 599:
                self.server.strange.append(wanted)
        data = said["body"].encode()
        self.send_response(said["status"])
        self.send_header("Content-Type", said["type"])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _really_said(url: str, wanted: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    body = None if wanted["request"] is None else json.dumps(wanted["request"])
    connection.request(wanted["method"], wanted["path"], body, {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        data = response.read().decode()
        return {"status": response.status, "type": response.getheader("content-type", ""), "body": data}


@contextmanager
def played() -> Iterator[Stage]:
    """A server that answers as the vLLM that was recorded."""
    with serving(Stage(json.loads(FILE.read_text()))) as stage:
        yield stage


def models_of(stage: Stage) -> dict[str, list[dict[str, Any]]]:
    """The models of the Corral in front."""
    url = f"http://{stage.name}"
    return {"m": [{"url": url, "model": "tiny"}], "unknown": [{"url": url}]}


def main(real: str) -> None:
    from tests.test_upstreams import front

    with tempfile.TemporaryDirectory() as folder, serving(Stage([], real)) as stage:
        with front(Path(folder), models_of(stage), CORRAL_UPSTREAM_TIMEOUT="60s") as server:
            ask(server, "GET", "/v1/models")
            for name in CASES:
                print(name, asked(server, name).body.decode(), sep="\n")
            ask(server, "GET", "/v1/models")
        FILE.write_text(json.dumps(stage.exchanges, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
