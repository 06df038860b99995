"""Listening and serving until a signal comes, with the routes of every dialect. Source: spec api §2.1, cli §2.2."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
from collections.abc import Generator
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from corral import EMULATES, __version__
from corral.config import Config
from corral.errors import CorralError, reason_of
from corral.inference.runners import Runners
from corral.server import anthropic, ollama, openai, page
from corral.server.http import metrics
from corral.server.http.access import Access
from corral.server.http.app import InFlight, build
from corral.server.http.documents import with_documents
from corral.server.http.guards import Origins
from corral.server.http.kept_answers import KeptAnswers
from corral.server.http.protocol import NEVER, bounded
from corral.server.keys import access_to, shown
from corral.server.runtime import runtime
from corral.server.tls import tls_context
from corral.sources.registry import keys
from corral.system import network
from corral.system.processes import most_open_files

log = logging.getLogger(__name__)

OPEN_FILES = 10240
"""Files and connections the server wants to have open at most, which is as many as macOS gives."""

BACKLOG = 1024
"""Connections that may wait to be accepted."""

ROUTES = with_documents((*ollama.ROUTES, *openai.ROUTES, *anthropic.ROUTES, *metrics.ROUTES))
"""Every path of the API."""


def serve(config: Config) -> None:
    """Listens and serves until SIGINT or SIGTERM; `CorralError` when it cannot listen (spec api §2.1, cli §2.2).

    Settings that cannot be used are a `ConfigError` before the first connection.
    """
    config = replace(config, host=config.host.to_listen)
    Origins(config.origins)
    encryption = tls_context(config)
    _ensure_key_pair(config)
    with _listen(config) as listener:
        access = access_to(config, listener)
        scheme = "https://" if encryption else ""
        log.info("Listening on %s%s (version %s, Ollama %s)", scheme, shown(listener), __version__, EMULATES)
        network.run(_serve(config, listener, access, encryption))


def _listen(config: Config) -> socket.socket:
    try:
        return _bound(config.host.host, config.host.port)
    except OSError as error:
        reason = reason_of(error)
        raise CorralError(f"listen tcp {config.host.netloc}: bind: {reason}") from error


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; without a host on every interface, by both versions of IP where the system has both."""
    if not host and socket.has_dualstack_ipv6():
        try:
            return _listener(socket.AF_INET6, ("::", port))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 may be there and turned off
                raise
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)
    # A name with addresses of both kinds, as localhost is, means the older one to Go, and so to its clients.
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return _listener(family, address)


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        network.reuse_address(listener)
        network.ask_peers(listener, 15, 9)  # as Go does
        if address[0] == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """Ends by a signal without dying of it: when it has ended, models are unloaded and clients get an error.

    It wakes once a second, for the date of answers. uvicorn's own loop wakes ten times a second, to look whether it is
    to end; a signal tells this one.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop = asyncio.get_running_loop()
        self._is_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_to_end.wait(), 1)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._is_to_end.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled, and sending their clients an error
            await asyncio.wait(self.server_state.tasks, timeout=1)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def uvicorn_config(app: ASGIApp, connections: int, encryption: ssl.SSLContext | None = None) -> uvicorn.Config:
    """How uvicorn serves; above so many connections idle ones are closed, to leave files for models and downloads.

    Half as many again may be busy. Without `encryption` it speaks plain HTTP.
    """
    return uvicorn.Config(
        app,
        http=bounded(connections, connections + connections // 2 + 1),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=NEVER,
        ws="none",
        ssl_context_factory=None if encryption is None else lambda *_: encryption,
    )


async def _serve(config: Config, listener: socket.socket, access: Access, encryption: ssl.SSLContext | None) -> None:
    in_flight, kept_answers = InFlight(), KeptAnswers()
    async with runtime(config) as ready:
        app = build((*page.ROUTES, *ROUTES), ready, access, in_flight, kept_answers)
        server = _Server(uvicorn_config(app, most_open_files(OPEN_FILES) // 2, encryption))
        with contextlib.suppress(KeyboardInterrupt):
            async with asyncio.TaskGroup() as tasks:
                idle = tasks.create_task(_end_when_idle(config.idle_exit, in_flight, ready.runners, server))
                await server.serve(sockets=[listener])
                idle.cancel()
        await kept_answers.close()
    await asyncio.to_thread(access.close)


async def _end_when_idle(seconds: float, in_flight: InFlight, runners: Runners, server: uvicorn.Server) -> None:
    """Ends a server that was started in the background after so many idle seconds, once no model is loaded."""
    if seconds == float("inf"):
        return
    while True:
        left = seconds - in_flight.idle_for()
        if left <= 0 and not runners.runners:
            break
        await asyncio.sleep(max(left, 0.5))
    log.info("idle for %.0f s, ending", seconds)
    signal.raise_signal(signal.SIGTERM)


def _ensure_key_pair(config: Config) -> None:
    """Makes the key pair that registries know this machine by; prints the public key when it is new (spec cli §2.2)."""
    path = config.home / keys.FILE_NAME
    if not path.exists():
        print(f"Couldn't find '{path}'. Generating new private key.")
    key = keys.load_or_create(config.home)
    if key.is_new:
        print(f"Your new public key is: \n\n{key.public_line}\n", flush=True)
