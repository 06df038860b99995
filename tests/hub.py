"""A stand-in for Hugging Face's registry, met as the real one is: by its name, encrypted, through a proxy that tunnels.

The hub has models under the owner's and the repository's own spelling, one tag a quantisation, and redirects requests
for a blob to a second host, to an address signed for that blob. Both hosts are this program; the proxy leads there
whatever name it is asked for, and writes down which. A proxy with nothing behind it refuses to connect.
"""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection, socket

from tests.http_servers import serving
from tests.registry import CONFIG_BYTES, MANIFEST, digest_of, manifest_of
from tests.token_server import tls_files

HOSTS = ("hf.co", "huggingface.co")
STORAGE = "storage.example"
SIGNATURE = "X-Signature=a%2Fb%2Bc%3D~d&Expires=1"


@dataclass
class Hub:
    """`environment` makes a program reach it; `asked` are the requests: host, path, and whether with credentials.

    With a `gate`, no blob is sent before as many requests for blobs have come as the barrier counts.
    """

    environment: Mapping[str, str]
    tunnels: list[str]
    port: int
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    gate: threading.Barrier | None = None

    def put_model(self, repository: str, tags: tuple[str, ...], **layers: bytes) -> bytes:
        """Its manifest."""
        self.blobs |= {digest_of(data): data for data in (*layers.values(), CONFIG_BYTES)}
        raw = manifest_of(layers)
        self.manifests |= {f"/v2/{repository}/manifests/{tag}": raw for tag in tags}
        return raw

    def answer(self, host: str, target: str, is_known: bool) -> tuple[int, dict[str, str], bytes]:
        self.asked.append((host, target, is_known))
        path, _, query = target.partition("?")
        digest = path.rpartition("/")[2]
        if host in HOSTS and target in self.manifests:
            return 200, {"Content-Type": MANIFEST}, self.manifests[target]
        if host in HOSTS and "/blobs/" in path and digest in self.blobs:
            return 307, {"Location": f"https://{STORAGE}/{digest}?{SIGNATURE}"}, b""
        if host == STORAGE and digest in self.blobs and query == SIGNATURE:
            if self.gate is not None:
                self.gate.wait()
            return 200, {}, self.blobs[digest]
        return 404, {}, b'{"error":"Repository not found"}'


@contextmanager
def running_hub(folder: Path) -> Iterator[Hub]:
    files = tls_files(folder, *HOSTS, STORAGE)

    class Handler(_Quiet):
        def do_GET(self) -> None:
            host = self.headers["Host"]
            status, headers, body = hub.answer(host, self.path, "Authorization" in self.headers)
            size = len(body)
            if status == 200 and (asked := self.headers.get("Range", "")):
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                status, body = 206, body[first : last + 1]
                headers = {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ExitStack() as stack:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files["certificate"], files["key"])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        stack.enter_context(serving(server))
        url, tunnels = stack.enter_context(running_tunnel(server.server_port))
        environment = {"HTTPS_PROXY": url, "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": files["certificate"]}
        hub = Hub(environment, tunnels, server.server_port)
        yield hub


@contextmanager
def running_tunnel(port: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """A proxy whose tunnels all lead to this port, or that makes none; its URL, and the `host:port`s it was asked."""
    asked: list[str] = []

    class Handler(_Quiet):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            if port is None:
                self.send_error(403, "Not from here")
                return
            with create_connection(("127.0.0.1", port)) as inner:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_copy, args=(inner, self.connection))
                back.start()
                _copy(self.connection, inner)
                back.join()
            self.close_connection = True

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass


def _copy(source: socket, target: socket) -> None:
    try:
        while data := source.recv(64 << 10):
            target.sendall(data)
        target.shutdown(1)
    except OSError:
        pass  # either side may hang up
