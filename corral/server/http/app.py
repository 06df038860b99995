"""The ASGI application: routes, guards, a clean path, one log line a request. Knows no dialect."""

import html
import logging
import posixpath
import re
import time
from collections.abc import Awaitable, Sequence
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Router
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral import telemetry
from corral.errors import CorralError, KeyRequired
from corral.inference import Runtime
from corral.inference.recent import Recent
from corral.machine.memory import memory
from corral.server.http.access import Access
from corral.server.http.budget import BodyBudget
from corral.server.http.dialect import id_header_of, is_routine, note_of
from corral.server.http.guards import Guard, Origins
from corral.server.http.images import ImageFetcher
from corral.server.http.kept_answers import Keeping, KeptAnswers
from corral.server.http.timing import server_timing
from corral.upstreams import via

log = logging.getLogger(__name__)

MIN_BODY_MEMORY = 512 << 20
"""Bytes that bodies of requests may take together even on the smallest machine."""


def build(
    routes: Sequence[StarletteRoute],
    runtime: Runtime,
    access: Access,
    in_flight: "InFlight",
    kept_answers: KeptAnswers,
) -> ASGIApp:
    """The ASGI application that answers these routes over a runtime."""
    app = Starlette()
    app.state.runtime = runtime
    app.state.access = access
    app.state.in_flight = in_flight
    app.state.images = ImageFetcher()
    app.state.body_budget = BodyBudget(runtime.config.body_memory or max(memory().total // 8, MIN_BODY_MEMORY))
    app.state.kept_answers = kept_answers
    origins, hosts_are_checked = Origins(runtime.config.origins), access.is_local and not access.is_needed
    guard = Guard(Keeping(_Routed(app, routes), kept_answers), origins, hosts_are_checked=hosts_are_checked)
    return _Log(_CleanPath(guard, routes), in_flight, runtime.recent)


class _Routed:
    """Leads a request to its route.

    Starlette's own layers are left out, since each piece of an answer would pass through them: a route answers its
    errors itself, and what has no route is answered here. Starlette tries one route after the other; a path without
    parameters is tried with those that can match it, which are found when it is first asked for.
    """

    def __init__(self, app: Starlette, routes: Sequence[StarletteRoute]) -> None:
        self._app = app
        self._routes = routes
        self._all = Router(routes, redirect_slashes=False)
        self._fixed = {route.path for route in routes if "{" not in route.path}
        self._found: dict[str, Router] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._app
        try:
            await self._router(scope["path"]).app(scope, receive, send)
        except HTTPException as error:
            await _http_error(error)(scope, receive, send)

    def _router(self, path: str) -> Router:
        if path not in self._fixed:
            return self._all
        if path not in self._found:
            matching = [route for route in self._routes if route.path_regex.match(path)]
            self._found[path] = Router(matching, redirect_slashes=False)
        return self._found[path]


def _http_error(error: HTTPException) -> Response:
    text = {404: "404 page not found", 405: "405 method not allowed"}.get(error.status_code, str(error.detail))
    methods = (error.headers or {}).get("Allow", "")
    allow = {"allow": ", ".join(sorted(methods.split(", ")))} if methods else {}
    return Response(text, error.status_code, {**allow, "content-type": "text/plain"})


class InFlight:
    """Requests under way, and when the last one ended. An idle server may end itself."""

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


def _note(error: CorralError | None) -> str:
    """What the log says of an error; little of those that strangers may cause by the thousand."""
    return "no known key" if isinstance(error, KeyRequired) else str(error or "")


_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def _header(scope: Scope, name: bytes) -> str:
    """The header of that name, all of them where it stands there more than once; empty where it does not."""
    return ", ".join(value.decode("latin-1") for given, value in scope["headers"] if given == name)


def _given_id(scope: Scope) -> str:
    """The id that the client gave; empty where it gave none, or one that would not do in a log."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _ID.fullmatch(given) else ""


class _Log:
    """One line a request, however it ends; counts requests under way.

    The answer gets two headers: the request's id, and where the time until then went. One wrapper does both, since it
    is called for every piece of an answer.
    """

    def __init__(self, app: ASGIApp, in_flight: InFlight, recent: Recent) -> None:
        self._app = app
        self._in_flight = in_flight
        self._recent = recent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, complete = time.monotonic(), 499, False
        request_id = _given_id(scope) or telemetry.new_request_id()
        telemetry.request_id.set(request_id)
        via.passed.set(_header(scope, via.HEADER.encode()))

        def noted(message: Message) -> Awaitable[None]:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers(scope, request_id)]
            elif not message.get("more_body", False):
                complete = True
            return send(message)

        self._in_flight.requests += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self._in_flight.requests -= 1
            self._in_flight.last = time.monotonic()
            client = scope["client"][0] if scope.get("client") else "-"
            error = note_of(scope) if complete else None
            telemetry.log_request(
                status,
                time.monotonic() - began,
                client,
                scope["method"],
                scope["path"],
                note=_note(error) if complete else "the client hung up",
                failed=error is not None,
                routine=is_routine(scope),
            )

    def _headers(self, scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
        reports = self._recent.reports(request_id)
        headers = [(id_header_of(scope), request_id.encode())]
        if timing := server_timing(reports):
            headers.append((b"server-timing", timing.encode()))
        if reports and (replica := reports[-1].replica):
            headers += [
                (b"x-corral-replica", replica.encode()),
                (b"x-corral-replica-reason", reports[-1].replica_reason.encode()),
            ]
        return headers
