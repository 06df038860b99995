"""A registry's address where connections are closed as soon as they are made, as balancers without servers do."""

import asyncio
import hashlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from corral import names, sources
from corral.errors import Unreachable
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.relay import relay
from tests.transfers import collect, make_registry

LIMITS = TransferLimits(slice_bytes=50_000, retry=RetryPolicy(6, 0.01))
MODEL = bytes(range(256)) * 1000
CONFIG = b"{}"


class PlainRegistry:
    """A small registry that wants a token, and keeps what it gets."""

    def __init__(self) -> None:
        self.blobs = {hashlib.sha256(data).hexdigest(): data for data in (MODEL, CONFIG)}
        self.manifests = {"m": manifest()}
        self.uploads: dict[str, bytes] = {}
        self.app = web.Application()
        self.app.router.add_route("*", "/{path:.*}", self.answer)
        self.host = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = await self._answer(request)
        response.force_close()  # so that each request has a connection of its own
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/token":
            return web.json_response({"token": "sesame"})
        if request.headers.get("Authorization") != "Bearer sesame":
            challenge = f'Bearer realm="http://{self.host}/token",service="s",scope="repository:library/m:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        match request.method, re.split(r"/(manifests|blobs)/", path):
            case "PUT", [_, "manifests", _]:
                self.manifests["copy"] = await request.read()
                return web.Response(status=201)
            case "GET" | "HEAD", [repository, "manifests", _]:
                raw = self.manifests.get(repository.rpartition("/")[2])
                return web.Response(status=404) if raw is None else web.Response(body=raw)
            case "POST", _:
                self.uploads[f"{path}{len(self.uploads)}"] = b""
                return web.Response(status=202, headers={"Location": f"{path}{len(self.uploads) - 1}"})
            case ("PATCH" | "PUT") as method, _:
                begin = int(request.headers.get("Content-Range", "0").partition("-")[0])
                self.uploads[path] = self.uploads[path][:begin] + await request.read()
                return web.Response(status=202 if method == "PATCH" else 201, headers={"Location": path})
            case "GET", _ if path in self.uploads:
                headers = {"Location": path, "Range": f"0-{len(self.uploads[path]) - 1}"}
                return web.Response(status=204, headers=headers)
            case _, [_, _, digest] if not path.startswith("/v2/library/copy/"):
                data = self.blobs[digest.removeprefix("sha256:")]
                span = request.http_range
                part = data[span]
                headers = {"Content-Range": f"bytes {span.start}-{span.start + len(part) - 1}/{len(data)}"}
                return web.Response(status=206, body=part, headers=headers)
        return web.Response(status=404)


def manifest() -> bytes:
    layers = [
        Layer(kind, names.parse_digest(f"sha256:{hashlib.sha256(data).hexdigest()}"), len(data))
        for kind, data in ((MediaType.CONFIG, CONFIG), (MediaType.MODEL, MODEL))
    ]
    return encode_manifest(layers[0], (layers[1],))


class Front:
    """A balancer: it hands connections on, but those that `closes` says (by number) it closes as they come."""

    def __init__(self, port: int, end: Callable[[socket.socket], None]) -> None:
        self._port = port
        self._end = end
        self.closes: Callable[[int], bool] = lambda number: False
        self.connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.closes(self.connections):
            self._end(writer.get_extra_info("socket"))
            writer.transport.abort()
            return
        await relay(reader, writer, self._port)


def closed(end: socket.socket) -> None:
    """An orderly end."""
    end.shutdown(socket.SHUT_RDWR)


def reset(end: socket.socket) -> None:
    """A reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def fronted(end: Callable[[socket.socket], None]) -> AsyncIterator[tuple[Front, PlainRegistry]]:
    registry = PlainRegistry()
    runner = web.AppRunner(registry.app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    front = Front(runner.addresses[0][1], end)
    server = await asyncio.start_server(front.connected, "127.0.0.1", 0)
    registry.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield front, registry
    finally:
        server.close()
        await runner.cleanup()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, LIMITS)
    yield registry
    await registry.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.mark.parametrize("end", [closed, reset])
@pytest.mark.parametrize(
    "closes",
    [lambda n: n <= 3, lambda n: n % 2 == 1, lambda n: 4 < n <= 13],
    ids=["three", "every second", "later ones"],
)
async def test_a_pull_goes_on_after_connections_were_closed(
    registry: Registry, store: Store, end: Callable[[socket.socket], None], closes: Callable[[int], bool]
) -> None:
    """Whether the registry speaks TLS, tokens, manifests, blobs: requests for each are the victims of a rule."""
    async with fronted(end) as (front, plain):
        front.closes = closes
        steps = await collect(
            registry.pull(names.parse(f"{plain.host}/library/m"), store, encryption=Encryption.PREFERRED)
        )
    assert steps[-1].status == "success"
    assert store.list()[0].manifest.raw == manifest()


@pytest.mark.parametrize("end", [closed, reset])
async def test_a_push_goes_on_after_connections_were_closed(
    registry: Registry, store: Store, end: Callable[[socket.socket], None]
) -> None:
    async with fronted(end) as (front, plain):
        name = names.parse(f"{plain.host}/library/copy")
        for data in (MODEL, CONFIG):
            store.add_bytes(data)
        store.write_manifest(name, manifest())
        front.closes = lambda number: number % 3 == 1
        steps = await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
        assert plain.manifests["copy"] == manifest()
    assert steps[-1].status == "success"


@pytest.mark.parametrize("end", [closed, reset])
async def test_a_registry_that_closes_every_connection_is_replaced_by_a_mirror(
    registry: Registry, store: Store, tmp_path: Path, tiny_gguf: Path, end: Callable[[socket.socket], None]
) -> None:
    async with fronted(end) as (front, plain):
        front.closes = lambda number: True
        name = names.parse(f"{plain.host}/library/m")
        with pytest.raises(Unreachable, match=r"^pull model manifest: Get .*: (EOF|.*connection reset by peer)$"):
            await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
        mirrors = {plain.host: (tiny_gguf.as_uri(),)}
        steps = await collect(
            sources.pull(name, store, registry=registry, mirrors=mirrors, encryption=Encryption.PREFERRED)
        )
    assert steps[-1].status == "success"
