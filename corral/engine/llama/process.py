"""One worker process: started, awaited until ready, watched while it runs a chat template, stopped; its end explained.

Knows no model and no HTTP.
"""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil

from corral.cage import Cage
from corral.children import environment
from corral.engine import libraries, wheels
from corral.engine.base import RunnerSpec
from corral.engine.llama.log import WorkerLog
from corral.engine.llama.worker import Ready, WorkerConfig
from corral.errors import DeviceFailed, EngineCrashed, EngineDied, EngineError, OutOfMemory, reason_of
from corral.system.processes import CRASHES, GROUPS, KILLED

TICK = 0.2
"""Seconds between looks at what a worker uses."""

_REFUSED = "ermission denied"
_OUTSIDE = "it runs in a cage (docs/safety.md): CORRAL_WORKER_FOLDERS names folders that it may read and write, too"
"""What is said to who uses another llama-server that needs files which its cage does not hold."""

GRACE = 5.0
"""Seconds a worker has to end after it was asked to."""

_SPIN = "1000"
"""Rounds an engine's thread turns at a barrier before it sleeps, libgomp's own choice where threads outnumber cores.

Its usual 300,000 outlast the slice of time that another program gets: with one busy program beside, or two models
answering, each of the hundreds of barriers of a token waited for such a slice (`benchmarks/neighbours.py`).
"""

TEMPLATE_SECONDS = 5.0
"""Of processor time, in which a chat template has been tried; it takes thousandths of one."""

TEMPLATE_BYTES = 1 << 29
"""By which a worker may grow while it runs a chat template."""

EMPTY_BYTES = 32 << 20
"""What a worker holds before it loads: Python, llama.cpp and their libraries, about."""

RENDER_CHECK, RENDER_TIMEOUT = 1.0, 10.0
"""Seconds after which rendering a prompt is looked at, and those it may take; it takes thousandths of one."""


class UnusableTemplateError(EngineError):
    """The worker could not run the model's own chat template when all else was loaded."""


class RunawayTemplateError(UnusableTemplateError):
    """A chat template ran beyond its time or memory; a thread of the worker still runs it."""

    def __init__(self) -> None:
        super().__init__("the model's chat template takes too long or too much memory")


class WorkerProcess:
    """A worker from its start to its end. `url` and `key` are where and how clients reach it."""

    def __init__(self, process: asyncio.subprocess.Process, config: WorkerConfig) -> None:
        self.key = config.key
        self.url = ""
        self.log = WorkerLog(Path(config.log))
        self.cache_bytes = config.cache_ram_mib << 20
        self._process = process
        self._tries_template = config.spec.own_template
        self._is_caged_program = (
            bool(config.program) and not wheels.is_wheel(config.program) and config.cage.mode != "off"
        )
        self._stopped = False
        self._given_up = ""
        self._exit = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(
        cls,
        spec: RunnerSpec,
        *,
        log: Path,
        program: str = "",
        cache_ram_mib: int = 1024,
        slot_folder: str = "",
        without: Sequence[str] = (),
        waiting: asyncio.subprocess.Process | None = None,
        cage: Cage = Cage(),  # noqa: B008 - frozen
    ) -> "WorkerProcess":
        """Starts a worker for `spec`; `ready` waits for it. What it prints goes to `log`.

        `program` is another llama-server to run, `without` the flags that it lacks; `cache_ram_mib` bounds the
        prompt cache in MiB, `slot_folder` is where slots may be saved. `waiting` is a process that was started as a
        `Spare` and becomes this worker; `cage` is what it shuts itself in with before it opens a model's file.
        `EngineError` when the log cannot be written.
        """
        config = WorkerConfig(
            spec=spec,
            key=secrets.token_urlsafe(24),
            parent=os.getpid(),
            program=program,
            without=tuple(without),
            log=str(log),
            cache_ram_mib=cache_ram_mib,
            slot_folder=slot_folder,
            cage=cage,
        )
        with _create(log) as output:
            process = waiting or await start_process(output)
        worker = cls(process, config)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(config) + b"\n")  # `ready` waits until it is read
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self, stall_timeout: float) -> bool:
        """Waits until the worker says where it listens; returns whether it serves already.

        `stall_timeout` is how many seconds may go by without progress (spec cli §11). `EngineDied`, `OutOfMemory`,
        `UnusableTemplateError` or `EngineError` say why it did not come up; the process is gone then.
        """
        assert self._process.stdout is not None
        line = asyncio.ensure_future(self._process.stdout.readline())
        try:
            await self.progressing(line, stall_timeout)
            report = msgspec.json.decode(line.result() or b"{}", type=Ready)
        except BaseException:
            await self.stop(grace=0)
            raise
        finally:
            await discard(line)
        if not report.port:
            await self.stop(grace=GRACE)
            raise self.failure(report)
        self.url = f"http://127.0.0.1:{report.port}"
        return report.ready

    async def progressing(self, goal: asyncio.Future[Any], stall_timeout: float) -> None:
        """Waits for `goal` as long as the worker makes progress: prints or grows every `stall_timeout` seconds.

        A chat template that would run for ever, or grow, is no progress. `EngineError` when the wait is given up.
        """
        runaway = asyncio.ensure_future(self._wait_for_runaway_template())
        try:
            while not goal.done():
                before = self._progress()
                timeout = None if stall_timeout == float("inf") else stall_timeout
                done, _ = await asyncio.wait({goal, runaway}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if runaway in done and not goal.done():
                    raise RunawayTemplateError
                if not done and self._progress() == before:
                    last = self.log.last_error() or self.log.last_line()
                    raise EngineError(f"timed out waiting for llama-server to start - {last}")
        finally:
            await discard(runaway)

    async def _wait_for_runaway_template(self) -> None:
        """Returns when the worker, all loaded, runs the model's own chat template beyond its time or memory."""
        while not (self._tries_template and self.log.has_loaded()):  # noqa: ASYNC110 - another process, which sets no event of ours
            await asyncio.sleep(TICK)
        seconds, size = self._processor_seconds(), self.memory()
        within = True
        while within:
            await asyncio.sleep(TICK)
            spent, grown = self._processor_seconds() - seconds, self.memory() - size
            within = spent < TEMPLATE_SECONDS and grown < TEMPLATE_BYTES

    async def rendering(
        self, prompt: asyncio.Future[Any], healthy: Callable[[], Awaitable[bool]], others: Callable[[], bool]
    ) -> None:
        """Waits for a prompt; `RunawayTemplateError` when its chat template runs beyond its time or memory.

        `healthy` asks whether the worker answers pings: else the request only waits behind others. `others` says
        whether other requests have run meanwhile: the prompt cache may have grown for them.
        """
        await rendered(prompt, healthy, others, self._own_memory, self.cache_bytes)

    def _processor_seconds(self) -> float:
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def signs_of_life(self) -> tuple[float, int]:
        """What grows while the worker computes or prints."""
        return self._processor_seconds(), self.log.size()

    async def give_up(self, reason: str) -> None:
        """Kills a worker that hangs; `reason` is how it ended then."""
        self._given_up = reason
        await self.stop(grace=0)

    def _progress(self) -> tuple[int, int]:
        return self.log.size(), self.memory() >> 20

    def failure(self, report: Ready = Ready()) -> EngineError:  # noqa: B008 - frozen
        """Why a load failed, after the worker has ended; `report` is what it said itself.

        A program that reports nothing is judged by its log.
        """
        terminated = "llama-server process has terminated"
        if self._failed_at_template(report):
            reason = self.log.template_error() or report.error or self.exit_reason()
            return UnusableTemplateError(f"the model's chat template cannot be run: {reason}")
        error = report.error or self.log.first_error()
        if report.out_of_memory or (not report.error and self.log.is_out_of_memory()):
            return OutOfMemory(f"not enough memory to load the model: {error}")
        last = error or self.log.last_line()
        if missing := libraries.advice(last):
            return EngineDied(f"the engine does not start: {missing}")
        if (failed := self.log.device_error()) and not self._given_up:
            return DeviceFailed(f"{terminated}: {self.exit_reason()}: {failed}")
        if report.error:
            return EngineDied(f"{terminated}: {error}")
        sentence = f"{terminated}: {self.exit_reason()}{f': {last}' if last else ''}"
        if self._is_caged_program and _REFUSED in last:
            sentence += f"\n{_OUTSIDE}"
        if -(self._process.returncode or 0) in CRASHES and not self._given_up:
            return EngineCrashed(sentence, how=self.exit_reason())
        return EngineDied(sentence)

    def _failed_at_template(self, report: Ready) -> bool:
        """Whether the worker ended by itself, with a report or a crash, while it tried the model's own template."""
        was_killed = not report.error and self._process.returncode in (-signal.SIGTERM, KILLED)
        return self._tries_template and self.log.has_loaded() and not was_killed

    async def ended(self) -> str:
        """Waits for the end of the worker; returns `exit_reason`."""
        await asyncio.shield(self._exit)
        return self.exit_reason()

    @property
    def alive(self) -> bool:
        return not self._exit.done()

    def exit_reason(self) -> str:
        """How the worker ended: `exit status 1`, `signal: killed`, or `stopped` when we ended it."""
        code = self._process.returncode
        if code is None:
            return "still running"
        if self._given_up:
            return self._given_up
        if self._stopped and code in (0, -signal.SIGTERM, KILLED):
            return "stopped"
        if code < 0:
            return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
        return f"exit status {code}"

    def memory(self) -> int:
        """Bytes of main memory the worker holds; 0 when it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.alive else 0
        except psutil.Error:
            return 0

    def loaded(self) -> int:
        """Bytes of the model that a worker which loads has in memory, about: weights, then its cache."""
        return max(0, self.memory() - EMPTY_BYTES)

    def _own_memory(self) -> int:
        """`memory` without pages of files, where the system tells them apart: weights come in while others compute."""
        try:
            held = psutil.Process(self.pid).memory_info()
        except psutil.Error:
            return 0
        return int(held.rss - getattr(held, "shared", 0))

    async def stop(self, grace: float = GRACE) -> None:
        """Asks the worker to end by closing its standard input, and kills it if it runs on after `grace` seconds."""
        self._stopped = self._stopped or self.alive
        assert self._process.stdin is not None
        self._process.stdin.close()
        GROUPS.end(self._process, kill=grace <= 0)
        try:
            await asyncio.wait_for(asyncio.shield(self._exit), grace or None)
        except TimeoutError:
            GROUPS.end(self._process, kill=True)
            await asyncio.shield(self._exit)


async def rendered(
    prompt: asyncio.Future[Any],
    healthy: Callable[[], Awaitable[bool]],
    others: Callable[[], bool],
    memory: Callable[[], int],
    cache_bytes: int,
) -> None:
    """As `WorkerProcess.rendering`, of any worker. `memory` tells what it holds; `cache_bytes` is what its prompt cache
    may take."""
    began, size = time.monotonic(), memory()
    await asyncio.wait({prompt}, timeout=RENDER_CHECK)
    while not prompt.done():
        allowed = TEMPLATE_BYTES + (cache_bytes if others() else 0)
        is_runaway = time.monotonic() - began > RENDER_TIMEOUT or memory() - size > allowed
        if is_runaway and await healthy() and not prompt.done():
            raise RunawayTemplateError
        await asyncio.wait({prompt}, timeout=TICK)


async def discard(work: asyncio.Future[Any]) -> None:
    """Cancels work whose outcome is not needed and waits for its end; an error of it is dropped."""
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled():
        work.exception()


def _create(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return open(log, "wb")
    except OSError as error:
        raise EngineError(f'cannot write the log "{log}": {reason_of(error)}') from error


async def start_process(output: BinaryIO | int, *arguments: str) -> asyncio.subprocess.Process:
    """A worker's process, which waits for its configuration; what it prints goes to `output`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a corral.py in the working folder is none of ours
        "-m",
        "corral.engine.llama.worker",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=output,
        env=_environment(),
        **GROUPS.options,
    )


def _environment() -> dict[str, str]:
    kept = environment()
    waiting = {} if kept.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} else {"GOMP_SPINCOUNT": _SPIN}
    return {**waiting, **kept}
