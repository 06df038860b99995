"""A stand-in for Hugging Face's API: `/api/models`, `/api/models/ID`, and files behind a redirect to a storage host.

It speaks what `huggingface_hub` reads, in the hub's forms; no test reaches the hub itself. `answers` replaces any
answer by path, to be as hostile as a test likes. Run as a program it serves a few models at a port.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_servers import serving
from tests.tiny_models import tiny_llama

Files = dict[str, int]


@dataclass
class HubApi:
    """`models` are repositories with their members beyond the id and the sizes of their files."""

    url: str
    beginning: bytes
    """What every GGUF file begins with."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)

    def put(self, id_: str, files: Files, **members: Any) -> None:
        siblings = [{"rfilename": path, "size": size, "blobId": "0" * 40} for path, size in files.items()]
        gguf = {"total": 3_212_749_888, "architecture": "llama", "context_length": 131072}
        self.models[id_] = {
            "id": id_,
            "modelId": id_,
            "downloads": 0,
            "likes": 0,
            "gated": False,
            "private": False,
            "lastModified": "2026-03-01T12:00:00.000Z",
            "tags": ["gguf"],
            "siblings": siblings,
            "gguf": gguf,
            **members,
        }

    def answer(self, target: str, first: int, last: int) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(target)
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path in self.answers:
            return self.answers[parts.path]
        if parts.path == "/api/models":
            return self._listed(query)
        if (id_ := parts.path.removeprefix("/api/models/")) in self.models:
            return _json(self.models[id_])
        if parts.path.startswith("/storage/") and query.get("X-Signature") == "a/b":
            data = self.beginning[first : last + 1]
            return 206, {"Content-Range": f"bytes {first}-{last}/*"}, data
        if "/resolve/main/" in parts.path:
            return 302, {"Location": f"/storage{parts.path}?X-Signature=a%2Fb"}, b""
        return 404, {}, b'{"error":"Repository not found"}'

    def _listed(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        assert (query["filter"], query["sort"], query["direction"]) == ("gguf", "downloads", "-1")
        words = query["search"].lower()
        found = [model for id_, model in self.models.items() if words in id_.lower()]
        found.sort(key=lambda model: -model["downloads"] if isinstance(model["downloads"], int) else 0)
        listed = [{key: model[key] for key in ("id", "downloads", "likes", "tags")} for model in found]
        return _json(listed[: int(query["limit"])])


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(value).encode()


@contextmanager
def running_hub_api(port: int = 0) -> Iterator[HubApi]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "").removeprefix("bytes=")
            first, last = map(int, asked.split("-")) if asked else (0, 0)
            status, headers, body = hub.answer(self.path, first, last)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with TemporaryDirectory() as folder, serving(ThreadingHTTPServer(("127.0.0.1", port), Handler)) as server:
        beginning = tiny_llama(Path(folder, "tiny.gguf")).read_bytes()
        hub = HubApi(f"http://127.0.0.1:{server.server_port}", beginning)
        yield hub


def put_examples(hub: HubApi) -> None:
    """Repositories as the hub has them."""
    kinds = {"Q2_K": 1.4, "Q3_K_M": 1.7, "IQ4_XS": 1.8, "Q4_K_M": 2.0, "Q5_K_M": 2.3, "Q8_0": 3.4, "f16": 6.4}
    llama = {f"Llama-3.2-3B-Instruct-{kind}.gguf": int(size * 1e9) for kind, size in kinds.items()}
    hub.put("bartowski/Llama-3.2-3B-Instruct-GGUF", {"README.md": 9000, **llama}, downloads=1_234_567, likes=210)
    shards = {f"BF16/Big-BF16-{n:05d}-of-00003.gguf": 40_000_000_000 for n in (1, 2, 3)}
    big = {"Big-UD-Q4_K_XL.gguf": 42_000_000_000, **shards, "Big-IQ1_S-00001-of-00002.gguf": 9_000_000_000}
    hub.put("unsloth/Llama-Big-70B-GGUF", big, downloads=54_321, lastModified="2026-11-26T08:00:00.000Z")
    seeing = {"mmproj-model-f16.gguf": 800_000_000, "model-q4_0.gguf": 700_000_000, "imatrix.gguf": 9}
    hub.put("someone/tiny-llama-vision", seeing, gated="manual", downloads=7)
    hub.put("other/llama-without-files", {"README.md": 9000}, downloads=3)


if __name__ == "__main__":
    with running_hub_api(int(sys.argv[1])) as running:
        put_examples(running)
        print(running.url, flush=True)
        sys.stdin.read()
