"""Work that must not run on the event loop, done in threads. Knows nothing of what the work is.

`Threads` runs a call and waits for what it returns; `Work` runs one long job whose progress is reported on the way.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from corral.messages import Progress

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Report = Callable[[Progress], None]
"""Takes a step of the work; raises to end the work when its reader has gone. To be called every few megabytes."""


_AHEAD = 2
"""Steps that the work may be ahead of their reader: a client that does not read holds the work up."""


class Threads:
    """At most `count` threads for one kind of work: calls that block there delay no other kind.

    A thread is started when a call finds none idle.
    """

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """What the call returns or raises. Cancelled while it runs, it goes on, and its result is dropped."""
        call = partial(function, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Drops calls that have not begun; those that have go on to their end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class _ReaderGoneError(Exception):
    pass


class Work(Generic[Result]):
    """One run of a function in a thread of its own: iterate `steps` to its end, then `result` is there.

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
                raise _ReaderGoneError
            loop.call_soon_threadsafe(queue.put_nowait, step)

        def run() -> None:
            try:
                self.result = self._function(report)
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, None)

        thread = ThreadPoolExecutor(1, thread_name_prefix="work")  # its own: one that waits delays no other
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
                running.exception()  # raised above already, or its reader has gone
