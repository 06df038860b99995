"""The body of a request, read whole within the budget for bodies, and let go of, or part by part.

Knows no route and no JSON.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request

from corral.errors import BodyTooLarge
from corral.server.http.budget import FILE_GRACE_SECONDS, FILE_RATE, BodyBudget, Lease, Pace

_HELD = "corral.body"
"""Key in a scope: the request's body."""


class _Held:
    """A body in memory, with its part of the budget."""

    def __init__(self, data: bytes, lease: Lease) -> None:
        self.data = data
        self.lease = lease


class _WholeRequest(Request):
    """A request whose body has been read. It can be had until `release_body`."""

    async def body(self) -> bytes:
        held: _Held = self.scope[_HELD]
        return held.data

    async def stream(self) -> AsyncGenerator[bytes, None]:
        yield await self.body()
        yield b""


@contextlib.asynccontextmanager
async def whole(request: Request, max_body: int) -> AsyncIterator[Request | None]:
    """The request with its body, in memory to the end of the block at most; None when the client left before.

    `BodyTooLarge` for more than `max_body` bytes, or more than the app's `BodyBudget` can ever have, before they are
    read; `Busy` when it has no room for a while; `BodyTooSlow`.
    """
    budget: BodyBudget = request.app.state.body_budget
    with budget.lease() as lease:
        data = await _read(request, min(max_body, budget.most), lease, budget)
        if data is None:
            yield None
            return
        request.scope[_HELD] = _Held(data, lease)
        del data  # or it would stay in memory after `release_body`
        yield _WholeRequest(request.scope, request.receive)


def release_body(request: Request) -> None:
    """Lets go of the bytes, once everything in them has been turned into values.

    They count until the request has been answered: the values hold as much, also of requests that wait for a model.
    """
    held: _Held = request.scope[_HELD]
    held.data = b""


async def hold_more(request: Request, size: int) -> None:
    """Counts what is made of a body, or fetched for it, as a part of it. Errors as those of `whole`."""
    held: _Held = request.scope[_HELD]
    budget: BodyBudget = request.app.state.body_budget
    if held.lease.size + size > budget.most:
        raise BodyTooLarge(budget.most, "request takes more memory than")
    await held.lease.grow(held.lease.size + size)


async def parts_of(request: Request) -> AsyncGenerator[bytes, None]:
    """A body that goes to the disk, as it comes. `ClientDisconnect`; `BodyTooSlow`, also for the largest."""
    pace = Pace(FILE_GRACE_SECONDS, FILE_RATE)
    async with contextlib.aclosing(request.stream()) as stream:
        while True:
            async with pace.waiting():
                part = await anext(stream, None)
            if part is None:
                return
            pace.received(len(part))
            yield part


async def _read(request: Request, most: int, lease: Lease, budget: BodyBudget) -> bytes | None:
    async def reserve(size: int) -> None:
        if size > most:
            raise BodyTooLarge(most)
        await lease.grow(size)

    if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        return b""  # HTTP has no other way to send one
    await reserve(int(request.headers.get("content-length", "0")))
    pace = budget.pace()
    parts: list[bytes] = []
    size = 0
    while True:
        async with pace.waiting():
            message = await request.receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        await reserve(size)
        pace.received(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
