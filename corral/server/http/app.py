"""The server: routes as one list, guards, errors → status, start and stop. Knows which dialect serves which path."""

import asyncio
import contextlib
import html
import logging
import os
import posixpath
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral import EMULATES, __version__, telemetry
from corral.config import Config
from corral.engine.base import Engine, RunnerSpec
from corral.engine.llama.client import launch
from corral.errors import CorralError
from corral.inference import Runtime
from corral.machine import Machine
from corral.machine.memory import memory
from corral.machine.threads import threads_here
from corral.models.model import Models
from corral.server import metrics, ollama, ollama_models
from corral.server.guards import Guard, Origins
from corral.server.ollama_replies import error_body
from corral.server.protocol import Protocol
from corral.server.streaming import INTERNAL_ERROR, JSON, Handler, Route, note, note_of
from corral.serving.scheduler import Events, Limits, Scheduler
from corral.sources import keys
from corral.sources.registry import Registry
from corral.store import Store
from corral.telemetry import Series

log = logging.getLogger(__name__)

MAX_BODY = 256 << 20
"""Bytes a JSON request may have: pictures come as base64."""

KEPT_LOGS = 32

OPEN_FILES = 10240
"""Files and connections the server wants to have open at most, which is as many as macOS gives."""

CACHE_RAM_MIB = 2048
"""Most host memory a worker's prompt cache may take; a smaller machine gives an eighth of what is free."""


def routes() -> list[StarletteRoute]:
    """Every path, its methods and who answers. HEAD only where it is listed (spec api §2.2)."""
    return [
        _route("/", ollama.root, "GET", "HEAD"),
        _route("/api/version", ollama.version, "GET", "HEAD"),
        _route("/api/status", ollama.status, "GET"),
        _route("/api/generate", ollama.generate, "POST"),
        _route("/api/chat", ollama.chat, "POST"),
        _route("/api/render", ollama.render, "POST"),
        _route("/api/embed", ollama.embed, "POST"),
        _route("/api/embeddings", ollama.embeddings, "POST"),
        _route("/api/tags", ollama_models.tags, "GET", "HEAD"),
        _route("/api/ps", ollama_models.ps, "GET"),
        _route("/api/show", ollama_models.show, "POST"),
        _route("/api/create", ollama_models.create, "POST"),
        _route("/api/blobs/{digest}", ollama_models.blob, "HEAD", "POST", reads_body=True),
        _route("/api/copy", ollama_models.copy, "POST"),
        _route("/api/delete", ollama_models.delete, "DELETE"),
        _route("/api/pull", ollama_models.pull, "POST"),
        _route("/api/push", ollama_models.push, "POST"),
        _route("/api/export", ollama_models.export, "POST"),
        _route("/api/import", ollama_models.import_, "POST"),
        _route("/api/me", ollama.me, "POST"),
        _route("/metrics", metrics.metrics, "GET"),
    ]


def _route(path: str, handler: Handler, *methods: str, reads_body: bool = False) -> StarletteRoute:
    route = StarletteRoute(path, Route(handler, max_body=MAX_BODY, reads_body=reads_body), methods=list(methods))
    route.methods = set(methods)  # starlette adds HEAD to every GET by itself
    return route


def build(runtime: Runtime, busy: "Activity") -> ASGIApp:
    """The ASGI application over a runtime."""
    app = Starlette(
        routes=routes(),
        exception_handlers={CorralError: _corral_error, HTTPException: _http_error, Exception: _unexpected},
    )
    app.router.redirect_slashes = False
    app.state.runtime = runtime
    app.state.activity = busy
    guard = Guard(app, Origins(runtime.config.origins), runtime.config.host)
    return _Log(_CleanPath(guard, routes()), busy)


async def _corral_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CorralError)
    note(request.scope, error)
    headers = {"content-type": JSON}
    if error.status == 503:
        headers["retry-after"] = "1"
    return Response(error_body(error), error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "404 page not found", 405: "405 method not allowed"}.get(error.status_code, str(error.detail))
    methods = (error.headers or {}).get("Allow", "")
    allow = {"allow": ", ".join(sorted(methods.split(", ")))} if methods else {}
    return Response(text, error.status_code, {**allow, "content-type": "text/plain"})


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Response(error_body(CorralError(INTERNAL_ERROR)), 500, {"content-type": JSON})


class Activity:
    """What goes on: requests under way and when the last one ended. An idle server may end itself."""

    def __init__(self) -> None:
        self.requests = 0
        self.last = time.monotonic()

    def idle_for(self) -> float:
        """Seconds without any request; 0 while there is one."""
        return 0.0 if self.requests else time.monotonic() - self.last


class _CleanPath:
    """Redirects a path with a trailing slash, doubled ones or dots to the clean one, if known (spec api §2.2)."""

    def __init__(self, app: ASGIApp, routes: Sequence[StarletteRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "/")
        clean = posixpath.normpath("/" + path.lstrip("/"))
        if scope["type"] != "http" or path == clean or not self._leads_somewhere({**scope, "path": clean}):
            await self._app(scope, receive, send)
            return
        get = scope["method"] == "GET"
        status = 301 if get or path.rstrip("/") != clean else 307
        query = scope.get("query_string", b"").decode("latin-1")
        location = quote(clean) + (f"?{query}" if query else "")  # quoted: the path may hold line breaks
        body = f'<a href="{html.escape(location)}">Moved Permanently</a>.\n\n' if get else ""
        headers = {"location": location, "content-type": "text/html; charset=utf-8"}
        await Response(body, status, headers)(scope, receive, send)

    def _leads_somewhere(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._routes)


class _Log:
    """One line a request, however it ends; keeps count of what goes on."""

    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, complete = time.monotonic(), 499, False

        async def noted(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                complete = True
            await send(message)

        self._activity.requests += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self._activity.requests -= 1
            self._activity.last = time.monotonic()
            client = scope["client"][0] if scope.get("client") else "-"
            error = note_of(scope) if complete else ""
            telemetry.log_request(
                status,
                time.monotonic() - began,
                client,
                scope["method"],
                scope["path"],
                note=error if complete else "the client hung up",
                failed=error != "",
            )


@contextlib.asynccontextmanager
async def runtime(config: Config) -> AsyncGenerator[Runtime, None]:
    """Everything a server needs, from the store to the scheduler; the workers are gone when the block is left."""
    store = Store(config.models)
    machine = Machine()
    chores = asyncio.ensure_future(_chores(config, store, machine))
    series = Series()
    limits = Limits(
        max_loaded=config.max_loaded_models,
        max_queue=config.max_queue,
        pool_contexts=config.pool_contexts,
        keep_alive=config.keep_alive,
    )
    scheduler = Scheduler(_launcher(config), machine.memory, limits, _events(series))
    registry = Registry(docker_config=config.docker_config, key_folder=config.home)
    try:
        yield Runtime(config, Models(store, config.go_template), scheduler, registry, series, machine)
    finally:
        chores.cancel()
        await scheduler.close()
        await registry.close()
        await machine.close()


async def _chores(config: Config, store: Store, machine: Machine) -> None:
    """What is done at start while requests are served already: GPUs looked for, the store tidied (spec cli §2.2)."""
    await machine.look()
    try:
        await asyncio.to_thread(store.prune, delete=not config.no_prune)
    except CorralError as error:
        log.warning("the store could not be tidied: %s", error)


def _introduce(config: Config) -> None:
    """Makes the key pair that registries know this machine by, telling its owner when it is new (spec cli §2.2)."""
    path = config.home / keys.FILE_NAME
    if not path.exists():
        print(f"Couldn't find '{path}'. Generating new private key.")
    key = keys.load_or_create(config.home)
    if key.is_new:
        print(f"Your new public key is: \n\n{key.public_line}\n", flush=True)


def _launcher(config: Config) -> Callable[[RunnerSpec, str], Coroutine[Any, Any, Engine]]:
    numbers = iter(range(1 << 30))

    async def start(spec: RunnerSpec, label: str) -> Engine:
        free_mib = memory().available >> 20
        threads = spec.num_thread or threads_here()
        return await launch(
            msgspec.structs.replace(spec, num_thread=threads),
            log=_worker_log(config.state, next(numbers)),
            patience=config.load_timeout,
            program=config.engine,
            cache_ram_mib=min(CACHE_RAM_MIB, free_mib // 8),
        )

    return start


def _worker_log(state: Path, number: int) -> Path:
    """Where a worker's prints go; those of the last workers are kept."""
    folder = state / "workers"
    with contextlib.suppress(OSError):
        logs = sorted(folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
        for old in logs[: max(0, len(logs) - KEPT_LOGS + 1)]:
            old.unlink()
    return folder / f"{os.getpid()}-{number}.log"


def _events(series: Series) -> Events:
    def loaded(label: str, seconds: float) -> None:
        series.loads.labels(label).inc()
        series.load_time.labels(label).observe(seconds)

    return Events(loaded=loaded, evicted=lambda label, reason: series.evictions.labels(label).inc())


def serve(config: Config) -> None:
    """Listens and serves until SIGINT or SIGTERM; `CorralError` when it cannot listen (spec api §2.1, cli §2.2)."""
    Origins(config.origins)  # a wrong one is told before anybody can connect
    _introduce(config)
    _allow_open_files()
    with _listen(config) as listener:
        log.info("Listening on %s (version %s, Ollama %s)", _shown(listener), __version__, EMULATES)
        if sys.platform == "win32":
            asyncio.run(_serve(config, listener))
            return
        import uvloop

        uvloop.run(_serve(config, listener))


def _allow_open_files() -> None:
    """Lets this process have `OPEN_FILES` files open, if it may: some systems give 256 to who does not ask."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(config: Config) -> socket.socket:
    host, port = config.host.host, config.host.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A name with addresses of both kinds, as localhost is, means the older one to Go, and so to its clients.
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CorralError(f"listen tcp {config.host.netloc}: bind: {reason}") from error
    return listener


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """Ends by a signal without dying of it: there are models to unload when it has ended, and clients to tell."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled, and about to say so to their clients
            await asyncio.wait(self.server_state.tasks, timeout=1)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


async def _serve(config: Config, listener: socket.socket) -> None:
    activity = Activity()
    async with runtime(config) as ready:
        app = build(ready, activity)
        server = _Server(
            uvicorn.Config(
                app,
                http=Protocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                date_header=True,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=75,
                ws="none",
            )
        )
        with contextlib.suppress(KeyboardInterrupt):
            async with asyncio.TaskGroup() as tasks:
                idle = tasks.create_task(_end_when_idle(config.idle_exit, activity, ready.scheduler, server))
                await server.serve(sockets=[listener])
                idle.cancel()


async def _end_when_idle(seconds: float, activity: Activity, scheduler: Scheduler, server: uvicorn.Server) -> None:
    """Ends a server that was started in the background when nobody has used it and no model is loaded."""
    if seconds == float("inf"):
        return
    while True:
        left = seconds - activity.idle_for()
        if left <= 0 and not scheduler.runners:
            break
        await asyncio.sleep(max(left, 0.5))
    log.info("idle for %.0f s, ending", seconds)
    signal.raise_signal(signal.SIGTERM)
