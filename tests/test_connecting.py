"""Connections to other machines: in time by passes of our own event loop, and what breaks them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from corral.config.upstreams import Upstream
from corral.engine.connecting import connected, within
from corral.errors import UpstreamError
from corral.system import network
from corral.upstreams.answer import Asked, ChatAnswer
from corral.upstreams.client import Client
from corral.upstreams.via import ServerId
from tests.fake_upstream import WORDS, FakeUpstream, dead_url, fake_upstream

Run = Callable[[Coroutine[Any, Any, Any]], Any]

both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])

BODY = b'{"model": "good", "messages": []}'


def client_of(url: str, silence: float = 1.0) -> Client:
    return Client(Upstream(url=url.removesuffix("/v1")), "good", silence, ServerId())


async def said(client: Client) -> list[str]:
    """The pieces of an answer of the server."""
    answer = ChatAnswer(client.name, Asked(size=len(BODY), model="good"))
    return [piece.text async for piece in client.stream("/v1/chat/completions", BODY, answer) if piece.text]


def hold(seconds: float) -> None:
    """Holds up the event loop."""
    time.sleep(seconds)


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with fake_upstream() as server:
        yield server


@both_loops
def test_a_server_is_not_to_blame_for_the_time_in_which_the_event_loop_was_held_up(
    run: Run, upstream: FakeUpstream
) -> None:
    async def main() -> list[str]:
        answered = asyncio.ensure_future(said(client_of(upstream.url)))
        for _ in range(6):  # longer than connecting may take, and than the server may say nothing
            await asyncio.sleep(0)
            hold(1.2)
        return await answered

    assert run(main()) == WORDS


@both_loops
def test_what_has_come_while_the_event_loop_was_held_up_counts(run: Run) -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(b"here")
            asyncio.get_running_loop().call_soon(hold, 0.3)
            return await within(0.2, asyncio.get_running_loop().sock_recv(ours, 4))

    assert run(main()) == b"here"


@both_loops
def test_what_does_not_come_is_given_up_and_ended(run: Run) -> None:
    ended: list[str] = []

    async def never() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("ended")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await within(0.05, never())
        assert ended == ["ended"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await within(60, never())
        assert ended == ["ended", "ended"]

    run(main())


@both_loops
def test_a_machine_that_accepts_no_connection_is_said_to_be_out_of_reach(run: Run) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):  # those that nobody takes fill what the system keeps
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        with pytest.raises(UpstreamError, match="cannot be reached: it does not answer a connection"):
            run(said(client_of(f"http://127.0.0.1:{address[1]}")))


@both_loops
def test_names_and_ports_that_are_none_are_errors_of_the_connection(run: Run) -> None:
    for host in ("nowhere.invalid", "a" * 300, "a..b", "127.0.0.1:1"):
        with pytest.raises(OSError):  # noqa: PT011 - each system has words of its own
            run(connected(host, 80, 2))
    with pytest.raises(UpstreamError, match="cannot be reached: connection refused"):
        run(said(client_of(dead_url())))


def test_the_system_asks_the_other_end_of_a_quiet_connection() -> None:
    with socket.socket() as one:
        network.notice_loss(one, 9)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = "TCP_KEEPALIVE" if hasattr(socket, "TCP_KEEPALIVE") else "TCP_KEEPIDLE"
        options = {idle: 3, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 9000}
        known = {name: value for name, value in options.items() if hasattr(socket, name)}
        assert {name: one.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in known} == known
