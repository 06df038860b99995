"""Loads a model: starts a worker, again where it has to do without something, and connects to it."""

import asyncio
import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct

from corral.cage import Cage
from corral.engine import wheels
from corral.engine.base import Keeping, LoadProgress, RunnerSpec
from corral.engine.choice import wheel_version
from corral.engine.llama import flags
from corral.engine.llama.build import build
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.connection import HANG_TIMEOUT
from corral.engine.llama.here import WorkerHere
from corral.engine.llama.process import UnusableTemplateError, WorkerProcess
from corral.engine.llama.spare import Spare
from corral.engine.load_options import PER_SLOT, SPARED
from corral.errors import EngineDied

CACHE_RAM_MIB = 2048
"""The most MiB of main memory that a worker's prompt cache takes, on any machine."""

_REFUSED_FLAG = re.compile(r"invalid argument: (--[a-z0-9-]+)")
"""How a llama-server of another age refuses a flag that it does not know."""

_lacking: dict[str, set[str]] = {}
"""The flags that builds of programs lack, as their help says, and those that they have refused."""


def cache_ram_mib(available: int) -> int:
    """MiB of main memory that a worker's prompt cache may take, of so many bytes that are free: an eighth at most."""
    return min(CACHE_RAM_MIB, (available >> 20) // 8)


async def launch(
    spec: RunnerSpec,
    *,
    log: Path,
    stall_timeout: float,
    program: str = "",
    cache_ram_mib: int = 1024,
    template_error: str = "",
    progress: LoadProgress | None = None,
    keeping: Keeping | None = None,
    spare: Spare | None = None,
    cage: Cage = Cage(),  # noqa: B008 - frozen
    flags_cache: Path | None = None,
) -> LlamaEngine:
    """Starts a worker for `spec` and waits until it serves; cancelling ends the worker.

    A worker that cannot run the model's own chat template is replaced by one that does not try: all but `chat` and
    `render` work. `template_error` is the reason where an earlier load has found that, and spares the first worker.
    `stall_timeout` is how many seconds the load may go by without progress, and `progress` is made to say how much of
    the model is in memory; `keeping` is where conversations are kept, None: nowhere; `spare` may have a process that
    becomes the worker; `flags_cache` is the folder for what programs say of their flags. The other arguments and the
    errors are those of `WorkerProcess.start` and `WorkerProcess.ready`.
    """
    launching = _Launching(
        log=log,
        stall_timeout=stall_timeout,
        program=program,
        cache_ram_mib=cache_ram_mib,
        progress=progress,
        keeping=keeping,
        spare=spare,
        cage=cage,
        without=await _flags_lacking(program, flags_cache),
    )
    if not template_error:
        try:
            return await launching.engine(spec)
        except UnusableTemplateError as error:
            template_error = str(error)
    return await launching.engine(msgspec.structs.replace(spec, own_template=False), template_error)


class _Launching(Struct, frozen=True, kw_only=True):
    """What all workers of one launch are started with. `without`: the flags that the program lacks, which may grow."""

    log: Path
    stall_timeout: float
    program: str
    cache_ram_mib: int
    progress: LoadProgress | None
    keeping: Keeping | None
    spare: Spare | None
    cage: Cage
    without: set[str]

    async def engine(self, spec: RunnerSpec, template_error: str = "") -> LlamaEngine:
        """Starts a worker, and another one without a flag that the program refuses where a model can be loaded so."""
        while True:
            try:
                return await self._connected(self._with_pool(spec), template_error)
            except EngineDied as error:
                refused = _REFUSED_FLAG.search(str(error))
                if not self.program or not refused or refused[1] not in SPARED.keys() - self.without:
                    raise
                self.without.add(refused[1])

    def _with_pool(self, spec: RunnerSpec) -> RunnerSpec:
        """The specification with a pool of one context, where the slots of the program cannot share a larger one."""
        shares_none = PER_SLOT in self.without and spec.pool > spec.num_ctx
        if self.progress is not None:
            self.progress.pool = spec.num_ctx if shares_none else None
        return msgspec.structs.replace(spec, pool=spec.num_ctx) if shares_none else spec

    async def _connected(self, spec: RunnerSpec, template_error: str) -> LlamaEngine:
        process = await self._worker(spec)
        serves = await process.ready(self.stall_timeout)
        engine = LlamaEngine(
            WorkerHere(process),
            hang_timeout=min(self.stall_timeout, HANG_TIMEOUT),
            has_llguidance=_has_llguidance(self.program),
            template_error=template_error,
        )
        if not serves:
            await engine.wait_until_served(process, self.stall_timeout)
        if spec.placement is not None and spec.placement.shares:
            engine.devices = await asyncio.to_thread(process.log.buffers)
        if self.keeping is not None:
            engine.keeps(self.keeping, spec.cache_bytes_per_token)
        return engine

    async def _worker(self, spec: RunnerSpec) -> WorkerProcess:
        process = await WorkerProcess.start(
            spec,
            log=self.log,
            program=self.program,
            cache_ram_mib=self.cache_ram_mib,
            slot_folder=f"{self.keeping.folder}{os.sep}" if self.keeping else "",
            without=sorted(self.without),
            waiting=None if self.program or self.spare is None else self.spare.take(),
            cage=self.cage,
        )
        if self.progress is not None:
            self.progress.loaded, self.progress.signs = process.loaded, process.signs_of_life
        return process


async def _flags_lacking(program: str, cache: Path | None) -> set[str]:
    """Those of this build of a program: it is asked once. A wheel has no flags, and lacks none."""
    state = build(program)
    if program and not wheels.is_wheel(program) and state not in _lacking:
        _lacking[state] = set(await asyncio.to_thread(flags.lacking, program, cache))
    return _lacking.setdefault(state, set())


def _has_llguidance(program: str) -> bool:
    """Whether an engine compiles schemas with the library that ours are written for: builds of llama-server are usually
    without it, and a wheel of another version may have another one."""
    return not program or (wheels.is_wheel(program) and wheels.version_in(program) == wheel_version())
