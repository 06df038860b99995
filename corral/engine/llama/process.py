"""One child process: started, awaited until ready, stopped; its log kept and its end explained. Knows no model."""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil

from corral.engine.base import RunnerSpec
from corral.engine.llama.worker import Ready, WorkerConfig
from corral.errors import EngineDied, EngineError, OutOfMemory

TICK = 0.2
"""Seconds between looks at a child that loads."""

GRACE = 5.0
"""Seconds a worker has to end after it was asked to."""

_KEPT = (
    *("CUDA_", "DYLD_", "GGML_", "GOMP_", "GPU_", "HIP_", "HSA_", "LC_", "LD_", "LLAMA_ARG_", "OMP_", "PYTHON"),
    *("ROCR_", "VK_"),
)
_KEPT_WHOLE = ("HOME", "LANG", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "VIRTUAL_ENV")

_SPIN = "1000"
"""Rounds an engine's thread turns at a barrier before it sleeps, libgomp's own choice where threads outnumber cores.

Its usual 300,000 outlast the slice of time that another program gets: with one busy program beside, or two models
answering, each of the hundreds of barriers of a token waited for such a slice (`benchmarks/neighbours.py`).
"""


LOADED = "initializing, n_slots"
"""What llama-server prints when all is loaded but the model's chat template, which it tries next."""

TEMPLATE_SECONDS = 5.0
"""Of processor time, in which a chat template has been tried; it takes thousandths of one."""

TEMPLATE_BYTES = 1 << 29
"""By which a worker may grow while it runs a chat template."""

RENDER_PATIENCE, RENDER_TIMEOUT = 1.0, 10.0
"""Seconds after which rendering a prompt is looked at, and those it may take; it takes thousandths of one."""

TEMPLATE_STRAINS = "the model's chat template takes too long or too much memory"


class WorkerProcess:
    """A worker from its start to its end. `url` and `key` are where and how it is spoken to."""

    def __init__(self, process: asyncio.subprocess.Process, key: str, log: Path) -> None:
        self.key = key
        self.url = ""
        self.log = log
        self._process = process
        self._stopped = False
        self._exit = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(
        cls, spec: RunnerSpec, *, log: Path, program: str = "", cache_ram_mib: int = 1024
    ) -> "WorkerProcess":
        """Starts a child for `spec` and hands it its orders; `ready` waits for it. The child's prints go to `log`."""
        with _create(log) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a corral.py in the working folder is none of ours
                "-m",
                "corral.engine.llama.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                env=_environment(),
                start_new_session=True,
            )
        worker = cls(process, secrets.token_urlsafe(24), log)
        config = WorkerConfig(
            spec=spec, key=worker.key, parent=os.getpid(), program=program, cache_ram_mib=cache_ram_mib
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(config) + b"\n")  # nobody waits until it is read: `ready` does
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self, patience: float) -> bool:
        """Waits until the child says where it listens; returns whether it serves already.

        `patience` is how many seconds may go by without progress (spec cli §11). `EngineDied`, `OutOfMemory` or
        `EngineError` tell why it did not come up; the child is gone then.
        """
        assert self._process.stdout is not None
        line = asyncio.ensure_future(self._process.stdout.readline())
        try:
            await self.progressing(line, patience)
            report = msgspec.json.decode(line.result() or b"{}", type=Ready)
        except BaseException:
            line.cancel()
            await self.stop(grace=0)
            raise
        if not report.port:
            await self.stop(grace=GRACE)
            raise self.failure(report.error)
        self.url = f"http://127.0.0.1:{report.port}"
        return report.ready

    async def progressing(self, goal: asyncio.Future[Any], patience: float) -> None:
        """Waits for `goal` as long as the child makes progress: prints or grows every `patience` seconds.

        A chat template that would run for ever, or grow, is no progress.
        """
        strained = asyncio.ensure_future(self._strained_by_template())
        try:
            while not goal.done():
                before = self._progress()
                timeout = None if patience == float("inf") else patience
                done, _ = await asyncio.wait({goal, strained}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if strained in done and not goal.done():
                    raise EngineError(TEMPLATE_STRAINS)
                if not done and self._progress() == before:
                    raise EngineError(f"timed out waiting for llama-server to start - {self.last_words()}")
        finally:
            strained.cancel()

    async def _strained_by_template(self) -> None:
        """Waits until the child, all loaded, runs the model's chat template beyond all measure."""
        while LOADED not in self.log_tail():  # noqa: ASYNC110 - nothing tells what a process has used
            await asyncio.sleep(TICK)
        seconds, size = self._processor_seconds(), self.memory()
        within = True
        while within:
            await asyncio.sleep(TICK)
            spent, grown = self._processor_seconds() - seconds, self.memory() - size
            within = spent < TEMPLATE_SECONDS and grown < TEMPLATE_BYTES

    async def rendering(self, prompt: asyncio.Future[Any], healthy: Callable[[], Awaitable[bool]]) -> None:
        """Waits for a prompt. A chat template that never ends, or grows, takes the child with it: `EngineError`.

        That the child answers pings shows that the request is not waiting behind others.
        """
        began, size = time.monotonic(), self.memory()
        await asyncio.wait({prompt}, timeout=RENDER_PATIENCE)
        while not prompt.done():
            is_strained = time.monotonic() - began > RENDER_TIMEOUT or self.memory() - size > TEMPLATE_BYTES
            if is_strained and await healthy() and not prompt.done():
                await self.stop(grace=0)
                raise EngineError(TEMPLATE_STRAINS)
            await asyncio.wait({prompt}, timeout=TICK)

    def _processor_seconds(self) -> float:
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _progress(self) -> tuple[int, int]:
        size = self.log.stat().st_size if self.log.exists() else 0
        return size, self.memory() >> 20

    def failure(self, error: str = "") -> EngineError:
        """Why a load failed, after the child has ended; `error` is what it said itself."""
        text = self.log_tail(4000).lower()
        reason = error or self.why()
        if LOADED in text:
            found = _TEMPLATE_ERROR.search(self.log_tail(4000))
            reason = f"the model's chat template cannot be run: {found[1] if found else reason}"
            return EngineDied(f"llama-server process has terminated: {reason}")
        if ("alloc" in text and ("fail" in text or "unable" in text)) or "out of memory" in text:
            return OutOfMemory(f"not enough memory to load the model: {self.last_words() or reason}")
        words = self.last_words()
        told = f"{reason}: {words}" if words and words not in reason else reason
        return EngineDied(f"llama-server process has terminated: {told}")

    async def ended(self) -> str:
        """Waits for the end of the child; returns the reason in words."""
        await asyncio.shield(self._exit)
        return self.why()

    @property
    def alive(self) -> bool:
        return not self._exit.done()

    def why(self) -> str:
        """How the child ended: `exit status 1`, `signal: killed`, or `stopped` when we ended it."""
        code = self._process.returncode
        if code is None:
            return "still running"
        if self._stopped and code in (0, -signal.SIGTERM, -signal.SIGKILL):
            return "stopped"
        if code < 0:
            return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
        return f"exit status {code}"

    def log_tail(self, size: int = 2000) -> str:
        """The last bytes of what the child printed."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def last_words(self) -> str:
        """The last line of the log that reports an error, or else the last one."""
        lines = [line.strip() for line in self.log_tail().splitlines() if line.strip()]
        errors = [line for line in lines if " E " in line or "error" in line.lower()]
        return (errors or lines or [""])[-1]

    def memory(self) -> int:
        """Bytes of main memory the child holds; 0 when it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.alive else 0
        except psutil.Error:
            return 0

    async def stop(self, grace: float = GRACE) -> None:
        """Asks the child to end by closing its standard input, and kills it when it has not within `grace` seconds."""
        self._stopped = self._stopped or self.alive
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM if grace > 0 else signal.SIGKILL)
        try:
            await asyncio.wait_for(asyncio.shield(self._exit), grace or None)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.shield(self._exit)


_TEMPLATE_ERROR = re.compile(r"(?:common_chat_templates_init: error|Error: Jinja Exception): (.+)")


def _create(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return open(log, "wb")
    except OSError as error:
        raise EngineError(f'cannot write the log "{log}": {(error.strerror or str(error)).lower()}') from error


def _environment() -> dict[str, str]:
    """What a worker may see of our environment: how to find its libraries and devices, no secret.

    A debugger that native code calls over its own corpse only delays the news.
    """
    kept = {key: value for key, value in os.environ.items() if key.startswith(_KEPT) or key in _KEPT_WHOLE}
    waiting = {} if kept.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} else {"GOMP_SPINCOUNT": _SPIN}
    return {"GGML_NO_BACKTRACE": "1", **waiting, **kept}
