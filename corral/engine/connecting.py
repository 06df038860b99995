"""Connections to servers on other machines: made in time, and broken soon after the other end is out of reach.

Time is counted in passes of this process's own event loop. One that is held up, by a busy machine or one that slept,
reads late what has come in time, and must not take that for the other server's silence.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohappyeyeballs

from corral.system import network

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.Protocol)

CONNECT_SECONDS = 1.0
"""How long another machine may take to accept a connection."""

HANDSHAKE_SECONDS = 5.0
"""How long it may take to agree on keys: a busy one computes for that."""

NEXT_ADDRESS_SECONDS = 0.25
"""After how long the next address of a name is tried beside one that has not answered. Source: RFC 8305, §5."""

STEPS = 10
"""Passes of the event loop, spread over a time, after which that time is over."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; `TimeoutError` when so much time is over. An event loop that was held up loses one of `STEPS`
    waits, and looks for what has come before the next."""
    task = asyncio.ensure_future(work)
    try:
        for _ in range(STEPS):
            if (await asyncio.wait({task}, timeout=seconds / STEPS))[0]:
                return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def connected(host: str, port: int, loss_seconds: int) -> socket.socket:
    """A connection to another machine, which breaks `loss_seconds` after the last sign of it. `OSError` and its kinds;
    `TimeoutError` where none is accepted in `CONNECT_SECONDS`."""
    return await within(CONNECT_SECONDS, _connected(host, port, loss_seconds))


async def _connected(host: str, port: int, loss_seconds: int) -> socket.socket:
    def new(address: aiohappyeyeballs.AddrInfoType) -> socket.socket:
        return connection_socket(address[0], loss_seconds)

    try:
        addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, socket_factory=new
        )
    except (RuntimeError, UnicodeError) as error:  # for names and addresses that are none
        raise OSError(str(error)) from error


def connection_socket(family: int, loss_seconds: int) -> socket.socket:
    """A socket for such a connection."""
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setblocking(False)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    network.notice_loss(found, loss_seconds)
    return found


async def opened(
    protocol: Callable[[], P], host: str, port: int, *, loss_seconds: int, encryption: ssl.SSLContext | None
) -> P:
    """A protocol on a connection made as by `connected`; `encryption`: with TLS, agreed on in `HANDSHAKE_SECONDS`."""
    found = await connected(host, port, loss_seconds)
    making = asyncio.get_running_loop().create_connection(
        protocol, sock=found, ssl=encryption, server_hostname=host if encryption else None
    )
    _, made = await within(HANDSHAKE_SECONDS, making)
    return made
