"""Bodies of requests: how much memory they take together, and how long a client may take over one."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from corral.config import Config
from corral.errors import BodyTooSlow, Busy
from corral.server.http import reading
from corral.server.http.budget import SMALL, BodyBudget, Lease, Pace
from corral.server.http.operation import Operation
from corral.server.http.reading import release_body
from corral.server.http.routing import route
from corral.server.http.streaming import Handler
from corral.server.keys import access_to
from corral.server.ollama.errors import dialect
from corral.server.serve import uvicorn_config
from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, running_server

MIB = 1 << 20
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Client:
    """A connection with a request whose body comes as the test sends it."""

    def __init__(self, server: RunningServer, size: int, path: str = "/api/show") -> None:
        address, port = server.host.rsplit(":", 1)
        self.raw = socket.create_connection((address, int(port)), timeout=60)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
        self.raw.sendall(head.encode())

    def wait_for_turn(self) -> None:
        """Returns when the server asks for the body."""
        assert self.raw.recv(len(CONTINUE), socket.MSG_WAITALL) == CONTINUE

    def has_turn(self) -> bool:
        """Whether the server has asked for the body already."""
        self.raw.setblocking(False)
        try:
            return self.raw.recv(len(CONTINUE), socket.MSG_PEEK) == CONTINUE
        except BlockingIOError:
            return False
        finally:
            self.raw.settimeout(60)

    def answer(self) -> Answer:
        response = http.client.HTTPResponse(self.raw)
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())


def body_of(size: int) -> bytes:
    """A request for a model that is not there, of so many bytes."""
    text = json.dumps({"model": "nothing", "system": ""})
    return text.replace('""', f'"{"x" * (size - len(text))}"').encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Large bodies may have 14 MiB together."""
    with running_server(tmp_path_factory.mktemp("home"), CORRAL_BODY_MEMORY=str(16 * MIB)) as server:
        yield server


@pytest.fixture
def clients() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def connect(stack: contextlib.ExitStack, server: RunningServer, size: int) -> Client:
    client = Client(server, size)
    stack.callback(client.raw.close)
    return client


def test_large_bodies_are_read_only_as_far_as_there_is_room(
    server: RunningServer, clients: contextlib.ExitStack
) -> None:
    """Of twenty clients three have room. While they take their time, small requests and files are served."""
    many = [connect(clients, server, 4 * MIB) for _ in range(20)]
    for client in many[:3]:
        client.wait_for_turn()
        client.raw.sendall(b"{")
    assert post(server, "/api/show", {"model": "nothing"}).status == 404
    data = bytes(20 * MIB)
    assert ask(server, "POST", f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}", data).status == 201
    assert not any(client.has_turn() for client in many[3:])
    many[1].raw.sendall(body_of(4 * MIB)[1:])
    assert many[1].answer().status == 404
    many[3].wait_for_turn()
    assert not any(client.has_turn() for client in many[4:])


def test_a_client_that_leaves_makes_room(server: RunningServer, clients: contextlib.ExitStack) -> None:
    first, second, third = (connect(clients, server, 10 * MIB) for _ in range(3))
    first.wait_for_turn()
    first.raw.sendall(b"{")
    second.raw.close()
    first.raw.close()
    third.wait_for_turn()
    third.raw.sendall(body_of(10 * MIB))
    assert third.answer().status == 404


def test_what_can_never_have_room_is_refused_at_once(server: RunningServer, clients: contextlib.ExitStack) -> None:
    answer = connect(clients, server, 14 * MIB + 1).answer()
    assert (answer.status, answer.error) == (413, f"request body is larger than {14 * MIB} bytes")


def test_json_counts_with_the_memory_that_its_values_take(server: RunningServer) -> None:
    """A few hundred kilobytes of `[],[],` would be a hundred times as large as lists; a text of that size is none."""
    empty = b'{"model":"nothing","options":{"x":[%s[]]}}' % (b"[]," * 100_000)
    answer = post(server, "/api/show", empty)
    assert (answer.status, answer.error) == (413, f"request takes more memory than {14 * MIB} bytes")
    assert post(server, "/api/show", body_of(len(empty))).status == 404


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_texts_count_with_the_vectors_that_they_become(server: RunningServer, path: str) -> None:
    answer = post(server, path, {"model": "nothing", "input": ["a"] * 1000})
    assert answer.status == 413
    assert f"request takes more memory than {14 * MIB} bytes" in answer.body.decode()
    assert post(server, path, {"model": "nothing", "input": ["a"] * 100}).status == 404


# Times, and what is let go of: a server within the test


@dataclass
class Kept:
    """A route that turns the body into nothing, lets go of it if it should, and answers when it may."""

    releases: bool
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: Request) -> Response:
        size = len(await request.body())
        if self.releases:
            release_body(request)
        self.begun.set()
        await self.go.wait()
        return Response(str(size))


@asynccontextmanager
async def serving(
    budget: BodyBudget,
    handler: Handler,
    operation: Operation = Operation(),  # noqa: B008 - a frozen value
) -> AsyncIterator[int]:
    """The port of a server with one route, `/`; the block has half a minute."""
    app = Starlette(routes=[route("/", handler, "POST", dialect=dialect(), operation=operation)])
    app.state.body_budget = budget
    server = uvicorn.Server(uvicorn_config(app, 100))
    with tempfile.TemporaryDirectory() as home, socket.create_server(("127.0.0.1", 0)) as listener:
        app.state.access = access_to(Config(home=Path(home), state=Path(home)), listener)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(30):
                yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running
            app.state.access.close()


async def answered(port: int, data: bytes, length: str) -> tuple[bytes, bytes]:
    """Status line and body of the answer to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST / HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode() + data)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.splitlines() if line.startswith(b"content-length:"))
        return head.partition(b"\r\n")[0], await reader.readexactly(size)
    finally:
        writer.close()


def chunked(data: bytes) -> bytes:
    parts = [data[begin : begin + 65536] for begin in range(0, len(data), 65536)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


BUSY = (b"HTTP/1.1 503 Service Unavailable", b'{"error":"too many large requests at once"}')
SLOW = (b"HTTP/1.1 408 Request Timeout", b'{"error":"the request body comes too slowly"}')
LARGE = bytes(3 * MIB)
ANNOUNCED = f"Content-Length: {len(LARGE)}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(("length", "data"), [(ANNOUNCED, b""), (CHUNKED, chunked(LARGE))], ids=["length", "chunked"])
async def test_who_waits_too_long_for_room_is_told_so(length: str, data: bytes) -> None:
    kept = Kept(releases=False)
    async with serving(BodyBudget(6 * MIB, wait_seconds=0), kept) as port:
        first = asyncio.create_task(answered(port, LARGE, ANNOUNCED))
        await kept.begun.wait()
        assert await answered(port, data, length) == BUSY
        kept.go.set()
        assert await first == (b"HTTP/1.1 200 OK", str(len(LARGE)).encode())
        assert await answered(port, data or LARGE, length) == (b"HTTP/1.1 200 OK", str(len(LARGE)).encode())


async def test_what_was_read_counts_until_its_request_is_answered() -> None:
    """The values hold as much as the bytes: requests that wait for a model would fill the memory in their turn."""
    kept = Kept(releases=True)
    async with serving(BodyBudget(6 * MIB, wait_seconds=0), kept) as port:
        first = asyncio.create_task(answered(port, LARGE, ANNOUNCED))
        await kept.begun.wait()
        assert await answered(port, chunked(LARGE), CHUNKED) == BUSY
        kept.go.set()
        assert await first == (b"HTTP/1.1 200 OK", str(len(LARGE)).encode())
        assert await answered(port, LARGE, ANNOUNCED) == (b"HTTP/1.1 200 OK", str(len(LARGE)).encode())


@pytest.mark.parametrize("length", [ANNOUNCED, CHUNKED, "Content-Length: 100"], ids=["large", "chunked", "small"])
@pytest.mark.parametrize("begin", [b"", b"5\r\nhello\r\n"], ids=["nothing", "a little"])
async def test_a_client_that_sends_too_slowly_is_told_so_and_makes_room(length: str, begin: bytes) -> None:
    kept = Kept(releases=False)
    async with serving(BodyBudget(6 * MIB, wait_seconds=0, grace_seconds=0.05), kept) as port:
        assert await answered(port, begin, length) == SLOW
        kept.go.set()
        assert await answered(port, LARGE, ANNOUNCED) == (b"HTTP/1.1 200 OK", str(len(LARGE)).encode())


async def test_a_file_may_come_over_any_line_but_has_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FILE_GRACE_SECONDS", 0.05)

    async def size(request: Request) -> Response:
        return Response(str(sum([len(part) async for part in reading.parts_of(request)])))

    async with serving(BodyBudget(6 * MIB), size, operation=Operation(takes_bytes=True)) as port:
        assert await answered(port, b"x", "Content-Length: 100") == SLOW
        assert await answered(port, LARGE, ANNOUNCED) == (b"HTTP/1.1 200 OK", str(len(LARGE)).encode())


async def test_what_came_fast_does_not_count_for_long() -> None:
    pace = Pace(0.05, rate=1)
    pace.received(1 << 30)
    with pytest.raises(BodyTooSlow):
        async with pace.waiting():
            await asyncio.Event().wait()


# The budget by itself


async def test_a_large_body_is_not_overtaken_by_other_large_ones() -> None:
    budget = BodyBudget(16 * MIB)
    with budget.lease() as first, budget.lease() as second, budget.lease() as third, budget.lease() as small:
        await first.grow(8 * MIB)
        waiting = asyncio.create_task(second.grow(10 * MIB))
        overtaking = asyncio.create_task(third.grow(2 * MIB))
        await small.grow(SMALL)
        assert (second.size, third.size) == (0, 0)
        first.release()
        await asyncio.gather(waiting, overtaking)


async def test_who_gives_up_lets_the_next_go_on() -> None:
    budget = BodyBudget(16 * MIB)
    with budget.lease() as first, budget.lease() as second, budget.lease() as third:
        await first.grow(8 * MIB)
        waiting = asyncio.create_task(second.grow(10 * MIB))
        behind = asyncio.create_task(third.grow(2 * MIB))
        await asyncio.sleep(0)
        waiting.cancel()
        await behind


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_comes_and_goes_stays_within_the_total_and_gives_all_back(seed: int) -> None:
    chance, total = random.Random(seed), 16 * MIB
    budget = BodyBudget(total, wait_seconds=chance.choice([0, 0.001, 0.01]))
    leases: set[Lease] = set()

    async def come_and_go() -> None:
        with budget.lease() as lease, contextlib.suppress(Busy):
            leases.add(lease)
            for size in sorted(chance.randrange(budget.most) for _ in range(chance.choice([1, 1, 3]))):
                await lease.grow(size)
                assert sum(lease.size for lease in leases) <= total
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(come_and_go()) for _ in range(30)]
    for task in chance.sample(tasks, 10):
        await asyncio.sleep(0)
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError)
    with budget.lease() as small, budget.lease() as large:
        await large.grow(budget.most)
        await small.grow(min(SMALL, total - budget.most))
