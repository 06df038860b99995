"""Answers that go on without their client, so that a page that was left or lost its connection can read on.

A POST with the header `x-corral-keep-answer` is answered as ever, only that its answer does not end when the client
hangs up. `/api/answers/{id}` gives the rest of it by the id of the request. Knows no dialect and no route.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral import telemetry
from corral.access.caller import Caller
from corral.inference.recent import STOPPED

HEADER = b"x-corral-keep-answer"
MAX_BYTES = 8 << 20
"""Bytes of an answer that is kept. One that gets longer is ended."""
MAX_ANSWERS = 64
KEPT_FOR = 600.0
"""Seconds that an answer is kept after its end."""
UNREAD_FOR = 120.0
"""Seconds that an answer may go on while nobody reads it."""


class KeptAnswer:
    """An answer under way or at its end, and those who read it."""

    def __init__(self) -> None:
        self.owner: str | None = None
        """Whose it is (`Caller.owner`); None until its request was admitted."""
        self.start: Message | None = None
        self.has_ended = False
        self.readers = 0
        self.is_unwanted = asyncio.Event()
        """Set when nobody wants the rest."""
        self.reason = ""
        """Why nobody wants it, where somebody said so."""
        self.task: asyncio.Task[None] | None = None
        self._body = bytearray()
        self._changed = asyncio.Event()

    async def take(self, message: Message) -> None:
        """What the application sends."""
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self._body += message.get("body", b"")
        self._tell()
        if len(self._body) > MAX_BYTES:
            self.is_unwanted.set()

    def stop(self) -> None:
        """Ends it, as its user asked."""
        self.reason = STOPPED
        self.is_unwanted.set()

    def end(self) -> None:
        self.has_ended = True
        self._tell()

    async def begun(self) -> Message | None:
        """The beginning of the answer, when it is there; None for one that ended without."""
        while self.start is None and not self.has_ended:
            await self._changed.wait()
        return self.start

    async def pieces(self, after: int) -> AsyncGenerator[bytes, None]:
        """The body from a byte on, as it comes."""
        while True:
            changed = self._changed
            if piece := bytes(self._body[after:]):
                after += len(piece)
                yield piece
            elif self.has_ended:
                return
            else:
                await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Rest(Response):
    """What comes of an answer after so many bytes."""

    def __init__(self, answer: KeptAnswer, after: int = 0) -> None:
        super().__init__()
        self._answer = answer
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer
        answer.readers += 1
        try:
            start = await answer.begun()
            if start is None:
                return
            headers = [(name, value) for name, value in start.get("headers", ()) if name.lower() != b"content-length"]
            await send({**start, "headers": headers})
            async with contextlib.aclosing(answer.pieces(self._after)) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            answer.readers -= 1
            if not answer.readers:
                asyncio.get_running_loop().call_later(UNREAD_FOR, _stop_unread, answer)


def _stop_unread(answer: KeptAnswer) -> None:
    if not answer.readers:
        answer.is_unwanted.set()


class KeptAnswers:
    """The answers that are kept, by the ids of their requests."""

    def __init__(self) -> None:
        self._answers: dict[str, KeptAnswer] = {}

    def get(self, request_id: str, owner: str) -> KeptAnswer | None:
        """The answer to a request of this owner."""
        answer = self._answers.get(request_id)
        return answer if answer is not None and answer.owner == owner else None

    def add(self, request_id: str) -> KeptAnswer | None:
        """An answer that is about to begin; None when there are too many that have not ended, or one of that id."""
        if request_id in self._answers or not self._has_room():
            return None
        self._answers[request_id] = answer = KeptAnswer()
        return answer

    def _has_room(self) -> bool:
        """Whether another answer can be kept; the oldest that has ended makes room."""
        if len(self._answers) < MAX_ANSWERS:
            return True
        oldest = next((name for name, answer in self._answers.items() if answer.has_ended), None)
        return oldest is not None and self._answers.pop(oldest) is not None

    def forget(self, request_id: str, answer: KeptAnswer) -> None:
        if self._answers.get(request_id) is answer:
            del self._answers[request_id]

    async def close(self) -> None:
        """Ends those that still run."""
        tasks = [answer.task for answer in self._answers.values() if answer.task is not None and not answer.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_KEPT = "corral.kept_answer"


def own_kept_answer(scope: Scope, caller: Caller) -> None:
    """Says whose the answer to a request is, if it is kept."""
    answer: KeptAnswer | None = scope.get(_KEPT)
    if answer is not None:
        answer.owner = caller.owner


class Keeping:
    """ASGI middleware that keeps the answers of requests that ask for it."""

    def __init__(self, app: ASGIApp, answers: KeptAnswers) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = scope["type"] == "http" and scope["method"] == "POST" and _asks(scope)
        request_id = telemetry.request_id.get()
        answer = self._answers.add(request_id) if wanted else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        scope[_KEPT] = answer
        client = _Client(receive, answer)
        answer.task = asyncio.create_task(self._run(request_id, answer, scope, client))
        await _until_hang_up(Rest(answer), scope, client, send)

    async def _run(self, request_id: str, answer: KeptAnswer, scope: Scope, client: "_Client") -> None:
        try:
            await self._app(scope, client.receive_request, answer.take)
        finally:
            answer.end()
            seconds = KEPT_FOR if answer.owner is not None else 0  # None: it was refused
            asyncio.get_running_loop().call_later(seconds, self._answers.forget, request_id, answer)


class _Client:
    """The client's side of a request: its body goes to the application, its hang-up to those who send to it."""

    def __init__(self, receive: Receive, answer: KeptAnswer) -> None:
        self._receive = receive
        self._answer = answer
        self._is_read = asyncio.Event()

    async def receive_request(self) -> Message:
        """What the application receives: the body, and then no hang-up but that of an unwanted answer."""
        if self._is_read.is_set():
            await self._answer.is_unwanted.wait()
            return {"type": "http.disconnect", "reason": self._answer.reason}
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_read.set()
        return message

    async def hang_up(self) -> None:
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _until_hang_up(rest: Rest, scope: Scope, client: _Client, send: Send) -> None:
    sending = asyncio.create_task(rest(scope, client.receive_request, send))
    leaving = asyncio.create_task(client.hang_up())
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


def _asks(scope: Scope) -> bool:
    return any(name == HEADER for name, _ in scope["headers"])
