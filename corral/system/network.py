"""Listening and the event loop, as systems differ in them."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs it on an event loop: uvloop, which Windows does not have."""
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)


def reuse_address(listener: socket.socket) -> None:
    """Lets it listen where connections of an ended server linger. On Windows that option would take a port from the
    program that has it."""
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def ask_peers(found: socket.socket, seconds: int, times: int) -> None:
    """Has the system ask the other end of a quiet connection every so many seconds whether it is there, whatever its
    programs do; the connection breaks when it has not answered so many times. A listener's connections inherit that."""
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    for option, value in ((idle, seconds), ("TCP_KEEPINTVL", seconds), ("TCP_KEEPCNT", times)):
        _set(found, option, value)


def notice_loss(found: socket.socket, seconds: int) -> None:
    """Has a connection break about so many seconds, two at least, after the last sign of its other end: when that does
    not answer the system's questions, and on Linux also when it does not confirm or take what was sent to it."""
    every = max(1, seconds // 3)
    ask_peers(found, every, max(1, seconds // every - 1))
    _set(found, "TCP_USER_TIMEOUT", 1000 * seconds)


def _set(found: socket.socket, option: str, value: int) -> None:
    """Where the system has such an option."""
    if hasattr(socket, option):
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
