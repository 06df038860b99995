"""Listening and the event loop, as systems differ in them."""

import asyncio
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
