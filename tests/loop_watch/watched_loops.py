"""Writes a line to a log for every callback that has held up the event loop of a server: blocked it, or kept it busy.

What other processes do to the machine must not count. A callback's time is the CPU time of its thread, and what it
waited for; but not the time its thread, or another of the process that may have had the interpreter's lock, waited for
a processor, nor the time those others ran (so a callback that waits for a busy thread is not found), nor what the
garbage collector took. What the server does before its first connection delays no client and is not watched.
"""

import asyncio
import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")

BASELINE_AGE = 0.02
"""Seconds after which the waiting time of all threads is read anew, which is too slow to be done at each callback."""


@dataclass(frozen=True)
class Times:
    """Seconds, since some moment."""

    wall: float
    own: float
    """CPU time of the loop's thread."""
    process: float
    """CPU time of all threads."""
    waited: float
    """For a processor: all threads together, and what the hypervisor gave to other machines."""


PAGING = 5
"""Times the limit that a callback may wait: while other tests fill disk and memory, a page of code that has to be read
again takes tenths of a second, which is no fault of the callback."""


class Watch:
    """Times one callback after the other, in the loop's thread."""

    def __init__(self, log: Path, limit: float) -> None:
        self._log = log
        self._limit = limit
        self._loop_thread = 0
        self._running: tuple[float, Any] | None = None
        self._sample: tuple[float, str] = (0.0, "")
        self._baseline = (0.0, 0.0)
        self._collecting = 0.0
        self._collected = 0.0
        self._excused = 0.0

    def begin(self) -> None:
        """Callbacks count from here on. In the loop's thread."""
        if not self._loop_thread:
            self._loop_thread = threading.get_ident()
            gc.callbacks.append(self._note_collection)
            threading.Thread(target=self._sample_stacks, daemon=True).start()

    def call(self, callback: Callable[..., Any], *arguments: Any) -> Any:
        if not self._loop_thread or self._running is not None or threading.get_ident() != self._loop_thread:
            return callback(*arguments)
        before, collected = self._times(may_be_old=True), self._collected
        self._excused = 0.0
        self._running = (before.wall, callback)
        try:
            return callback(*arguments)
        finally:
            self._running = None
            if time.perf_counter() - before.wall > self._limit:
                self._judge(callback, before, self._times(), self._collected - collected)

    def excuse(self, seconds: float) -> None:
        """Leaves so many seconds of the running callback out."""
        self._excused += seconds

    def _judge(self, callback: Any, before: Times, after: Times, collected: float) -> None:
        wall, own = after.wall - before.wall, after.own - before.own
        others = (after.process - before.process) - own
        waited = max(after.waited - before.waited, 0.0)
        blocked = max(wall - own - others - waited - self._excused, 0.0)
        held = own - collected + (blocked if blocked > PAGING * self._limit else 0.0)
        if held <= self._limit:
            return
        record = {
            "held": round(held, 4),
            "wall": round(wall, 4),
            "cpu": round(own, 4),
            "callback": _described(callback),
            "stack": self._sample[1] if self._sample[0] == before.wall else "",
        }
        with open(self._log, "a") as log:
            log.write(json.dumps(record) + "\n")

    def _times(self, *, may_be_old: bool = False) -> Times:
        now = time.perf_counter()
        if not may_be_old or now - self._baseline[0] > BASELINE_AGE:
            self._baseline = (now, _waited())
            now = time.perf_counter()
        return Times(now, time.thread_time(), time.process_time(), self._baseline[1])

    def _note_collection(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() == self._loop_thread:
            if phase == "start":
                self._collecting = time.thread_time()
            else:
                self._collected += time.thread_time() - self._collecting

    def _sample_stacks(self) -> None:
        """Keeps where the loop stands, once a callback has taken half of what it may."""
        while True:
            time.sleep(self._limit / 4)
            running = self._running
            if running is not None and time.perf_counter() - running[0] > self._limit / 2:
                frame = sys._current_frames().get(self._loop_thread)
                if self._running is running and self._sample[0] != running[0]:
                    self._sample = (running[0], "".join(traceback.format_stack(frame, limit=30)))


def _waited() -> float:
    if sys.platform != "linux":
        return 0.0
    nanoseconds = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            nanoseconds += int((task / "schedstat").read_bytes().split()[1])
        except (OSError, IndexError):  # it has just ended
            continue
    stolen = int(Path("/proc/stat").read_text().split(maxsplit=9)[8])
    return nanoseconds / 1e9 + stolen / os.sysconf("SC_CLK_TCK")


def _described(callback: Any) -> str:
    owner = getattr(callback, "__self__", None)
    return repr(owner if isinstance(owner, asyncio.Task) else callback)


def watched_loop(watch: Watch) -> Any:
    """A class of event loops like uvloop's, whose callbacks and protocols `watch` times."""
    import uvloop

    class WatchedLoop(uvloop.Loop):
        def call_soon(
            self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
        ) -> asyncio.Handle:
            return super().call_soon(watch.call, callback, *args, context=context)

        def call_soon_threadsafe(
            self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
        ) -> asyncio.Handle:
            return super().call_soon_threadsafe(watch.call, callback, *args, context=context)

        def call_later(
            self,
            delay: float,
            callback: Callable[[Unpack[Ts]], object],
            *args: *Ts,
            context: Context | None = None,
        ) -> asyncio.TimerHandle:
            return super().call_later(delay, watch.call, callback, *args, context=context)

        async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
            return await _Spawn(super().subprocess_exec(*args, **kwargs), watch)

        async def create_server(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
            def watched() -> Any:
                watch.begin()
                return _watched_protocol(protocol_factory(), watch)

            return await super().create_server(watched, *args, **kwargs)

        async def create_connection(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
            return await super().create_connection(
                lambda: _watched_protocol(protocol_factory(), watch), *args, **kwargs
            )

    return WatchedLoop


class _Spawn:
    """Awaits the start of a process. Its first step waits until the child has a processor, which is excused."""

    def __init__(self, start: Coroutine[Any, Any, Any], watch: Watch) -> None:
        self._start = start
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, Any]:
        began, own = time.perf_counter(), time.thread_time()
        try:
            step = self._start.send(None)
            self._watch.excuse(time.perf_counter() - began - (time.thread_time() - own))
            while True:
                try:
                    sent = yield step
                except BaseException as error:
                    step = self._start.throw(error)
                else:
                    step = self._start.send(sent)
        except StopIteration as stop:
            return stop.value


def _watched_protocol(protocol: Any, watch: Watch) -> Any:
    receive = protocol.data_received
    try:
        protocol.data_received = lambda data: watch.call(receive, data)
    except AttributeError:  # that of a library that lets nobody replace its methods
        return protocol
    return protocol


def install(log: Path, limit: float) -> None:
    """From here on, `uvloop.run` runs watched loops."""
    import uvloop

    loop_class = watched_loop(Watch(log, limit))
    run = uvloop.run

    def run_watched(main: Any, **options: Any) -> Any:
        return run(main, loop_factory=loop_class, **options)

    uvloop.run = run_watched
