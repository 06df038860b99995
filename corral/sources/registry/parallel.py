"""Jobs that run side by side, as many as the connections allow, and are reported one after the other.

Knows the steps that jobs report, not what they do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from corral.messages import Progress


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is done while `steps` is iterated, over so many connections at most."""

    steps: AsyncGenerator[Progress, None]
    connections: int


async def in_parallel(jobs: Sequence[Job], connections: int) -> AsyncGenerator[Progress, None]:
    """Runs the jobs and yields their steps: those of the first job, then those of the second, and so on.

    A job starts when all jobs before it have started and enough of the `connections` are free for it; none may ask
    for more than there are. While a job waits for its turn to be reported, its first and its newest step are kept. The
    first error of any job is raised at once. An error, and closing the iterator, end all jobs and wait for their end.
    """
    changed = asyncio.Event()
    runs = [_Run(job, changed) for job in jobs]
    running = asyncio.create_task(_run_all(runs, connections), name="jobs in parallel")
    running.add_done_callback(lambda _: changed.set())
    try:
        for run in runs:
            while True:
                changed.clear()
                while run.unread:
                    yield run.unread.popleft()
                if run.is_over or running.done():
                    break
                await changed.wait()
            if running.done():
                running.result()
        await running
    finally:
        running.cancel()
        await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()  # raised above, unless the reader left before


class _Run:
    """A job that runs, and those of its steps that have not been reported yet."""

    def __init__(self, job: Job, changed: asyncio.Event) -> None:
        self.job = job
        self.unread: deque[Progress] = deque()
        self.is_over = False
        self._changed = changed

    async def run(self) -> None:
        async with aclosing(self.job.steps) as steps:
            async for step in steps:
                if len(self.unread) == 2:
                    self.unread.pop()
                self.unread.append(step)
                self._changed.set()
        self.is_over = True
        self._changed.set()


async def _run_all(runs: Sequence[_Run], connections: int) -> None:
    free = _Connections(connections)

    async def run_one(run: _Run) -> None:
        await run.run()
        free.give_back(run.job.connections)

    try:
        async with asyncio.TaskGroup() as group:
            for run in runs:
                await free.take(run.job.connections)
                group.create_task(run_one(run))
    except BaseExceptionGroup as errors:
        leaf = first_error(errors)
        raise leaf from leaf.__cause__


class _Connections:
    """A number of connections, taken by one task and given back by many."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._returned = asyncio.Event()

    async def take(self, count: int) -> None:
        while self._free < count:
            self._returned.clear()
            await self._returned.wait()
        self._free -= count

    def give_back(self, count: int) -> None:
        self._free += count
        self._returned.set()


def first_error(error: BaseException) -> BaseException:
    """The first single error of a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
