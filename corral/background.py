"""Work that hashes and copies, done in a thread and told as it goes. Knows nothing of what the work is."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from corral.messages import Progress

Result = TypeVar("Result")
Report = Callable[[Progress], None]
"""Takes a step of the work; raises to end it when nobody listens any more. To be called every few megabytes."""


_AHEAD = 2
"""How many steps the work may be ahead of whoever is told: a client that does not read holds it up."""


class _NobodyListensError(Exception):
    pass


class Work(Generic[Result]):
    """One run of a function in a thread: iterate `steps` to its end, then `result` is there.

    Closing the iterator early makes the work end at its next report, and waits for that.
    """

    result: Result

    def __init__(self, function: Callable[[Report], Result]) -> None:
        self._function = function

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """What the work reports; raises what it raises."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        is_over = threading.Event()
        room = threading.Semaphore(_AHEAD)

        def report(step: Progress) -> None:
            room.acquire()
            if is_over.is_set():
                raise _NobodyListensError
            loop.call_soon_threadsafe(queue.put_nowait, step)

        def run() -> None:
            try:
                self.result = self._function(report)
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, None)

        thread = ThreadPoolExecutor(1, thread_name_prefix="work")  # its own: one that is held up holds up no other
        running = loop.run_in_executor(thread, run)
        try:
            while (step := await queue.get()) is not None:
                yield step
                room.release()
            await running
        finally:
            is_over.set()
            room.release()
            thread.shutdown(wait=False)
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # it was raised above, or nobody is left to be told
