"""Answers on the wire: JSON at once, or line by line as it comes. Knows no dialect.

A stream's source is always closed, whatever happens: when the client hangs up, the running route is cancelled, and
leaving its `aclosing` blocks frees the engine's slot at once. When the server ends, the waiting clients get an error.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral.errors import CorralError, InternalError, ServerStopping
from corral.server.http.access import Access, access_of, outcome_of
from corral.server.http.dialect import Dialect, dialect_of, note, note_of, set_dialect
from corral.server.http.discretion import said_to
from corral.server.http.kept_answers import own_kept_answer
from corral.server.http.needs import Needs
from corral.server.http.reading import whole

log = logging.getLogger(__name__)

T = TypeVar("T")

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"


class Stream(Response, Generic[T]):
    """A body sent piece by piece: `first`, and what `write` makes of each step. `steps` is closed at the end; an error
    in it becomes the dialect's last line.

    `block`: what the steps come from, entered by the caller and left when the body has ended, however it does.
    """

    def __init__(
        self,
        first: bytes,
        steps: AsyncGenerator[T, None],
        write: Callable[[T], bytes],
        media_type: str,
        block: contextlib.AsyncExitStack | None = None,
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["content-type"] = media_type
        self._first = first
        self._steps = steps
        self._write = write
        self._block = block or contextlib.AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        write = self._write
        async with self._block, aclosing(self._steps) as steps:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
                async for step in steps:
                    await send({"type": "http.response.body", "body": write(step), "more_body": True})
            except CorralError as error:
                await self._fail(scope, send, error)
            except asyncio.CancelledError:
                if not scope.get(_STOPS):
                    raise
                await self._fail(scope, send, ServerStopping())
            except Exception:  # a mistake of ours: the status is gone, but the client must not take this for the end
                log.exception("stream of %s failed", scope["path"])
                await self._fail(scope, send, InternalError())
            await send({"type": "http.response.body", "body": b""})

    async def _fail(self, scope: Scope, send: Send, error: CorralError) -> None:
        note(scope, error)
        await send(
            {"type": "http.response.body", "body": dialect_of(scope).line(said_to(scope, error)), "more_body": True}
        )


_STOPS = "corral.stops"
"""Key in a scope: its request is cancelled because the server ends, and the client is still there."""

_LEFT = "corral.left"
"""Key in a scope: its client hung up before the answer was complete."""

Handler = Callable[[Request], Awaitable[Response]]


class Route:
    """An ASGI app around a handler, which answers its errors in the route's dialect.

    The handler and its answer are cancelled when the client goes away. `reads_body` handlers take the body themselves,
    as it arrives; for the others it is read whole, up to `max_body` bytes, when the app's `BodyBudget` has room.
    One that `is_quick` waits for nothing but a look at the disk, so that nobody watches whether its client goes away.
    A caller without the key that `needs` says is refused before anything is read.
    A request that uvicorn cancels, as it does with what has not ended in time when the server ends, is answered with
    `ServerStopping`.
    """

    def __init__(
        self,
        handler: Handler,
        dialect: Dialect,
        needs: Needs,
        *,
        max_body: int,
        reads_body: bool = False,
        is_quick: bool = False,
    ) -> None:
        self._handler = handler
        self._dialect = dialect
        self._needs = needs
        self._max_body = max_body
        self._reads_body = reads_body
        self._is_quick = is_quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_dialect(scope, self._dialect)
        access = access_of(scope)
        try:
            await self._answer(access, scope, receive, send)
        finally:
            error = note_of(scope)
            access.record(scope, self._needs, outcome_of(error, has_left=scope.get(_LEFT, False)), error)

    async def _answer(self, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        error: CorralError
        try:
            own_kept_answer(scope, await access.admit(scope, self._needs))
            await self._serve(scope, receive, send)
            return
        except CorralError as raised:
            error = raised
        except asyncio.CancelledError:
            error = ServerStopping()
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            error = InternalError()
        note(scope, error)
        await self._dialect.answer(said_to(scope, error))(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if self._reads_body:
            try:
                await (await self._handler(request))(scope, receive, send)
            except ClientDisconnect:  # there is no answer to give
                scope[_LEFT] = True
            return
        async with whole(request, self._max_body) as complete:
            if complete is None:
                scope[_LEFT] = True
                return

            async def answer() -> None:
                await (await self._handler(complete))(scope, receive, send)

            await (answer() if self._is_quick else _until_hang_up(answer(), scope, receive))


async def _until_hang_up(work: Awaitable[None], scope: Scope, receive: Receive) -> None:
    """Runs `work`; when the client hangs up first, cancels it and waits until it has let go of everything. The
    `CancelledError` has the reason that the hang-up came with.

    When it is cancelled itself, `work` is too; what has not begun to answer ends in `CancelledError`.
    """
    reason: str | None = None
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        scope[_STOPS] = True
    else:
        reason = watcher.result() if watcher.done() else None
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel(reason)
            await asyncio.wait({task})
    if not task.cancelled() or scope.get(_STOPS):
        task.result()
    else:
        scope[_LEFT] = True


async def _hang_up(receive: Receive) -> str | None:
    """Waits until the client hangs up; gives the reason for it where there is one (`kept_answers`)."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            reason: str | None = message.get("reason")
            return reason or None
