"""A model loaded: a worker is started, again where it has to do without something, and connected to."""

import asyncio
import os
import re
from pathlib import Path

import msgspec

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

_REFUSED_FLAG = re.compile(r"invalid argument: (--[a-z0-9-]+)")
"""How a llama-server of another age refuses a flag that it does not know."""

_lacking: dict[str, set[str]] = {}
"""The flags that builds of programs lack, as their help says, and those that they have refused."""


CACHE_RAM_MIB = 2048
"""Most of it, on any machine."""


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
) -> "LlamaEngine":
    """Starts a worker for `spec` and waits until it serves; cancelling ends the worker.

    A worker that cannot run the model's own chat template is replaced by one that does not try: all but `chat` and
    `render` work. `template_error` is the reason where an earlier load has found that, and spares the first worker.
    `stall_timeout` is how many seconds the load may go by without progress, and `progress` is made to say how much of
    the model is in memory; `keeping` is where conversations are kept, None: nowhere; `spare` may have a process that
    becomes the worker; `flags_cache` is the folder for
    what programs say of their flags; the other arguments and the errors are
    those of `WorkerProcess.start` and `WorkerProcess.ready`.
    """

    without = await _flags_lacking(program, flags_cache)

    async def start(spec: RunnerSpec) -> LlamaEngine:
        shares_no_pool = PER_SLOT in without and spec.pool > spec.num_ctx
        if shares_no_pool:
            spec = msgspec.structs.replace(spec, pool=spec.num_ctx)
        if progress is not None:
            progress.pool = spec.pool if shares_no_pool else None
        process = await WorkerProcess.start(
            spec,
            log=log,
            program=program,
            cache_ram_mib=cache_ram_mib,
            slot_folder=f"{keeping.folder}{os.sep}" if keeping else "",
            without=sorted(without),
            waiting=None if program or spare is None else spare.take(),
            cage=cage,
        )
        if progress is not None:
            progress.loaded, progress.signs = process.loaded, process.signs_of_life
        serves = await process.ready(stall_timeout)
        engine = LlamaEngine(
            WorkerHere(process),
            hang_timeout=min(stall_timeout, HANG_TIMEOUT),
            has_llguidance=_has_llguidance(program),
            template_error=template_error,
        )
        if not serves:
            await engine.wait_until_served(process, stall_timeout)
        if spec.placement is not None and spec.placement.shares:
            engine.devices = await asyncio.to_thread(process.log.buffers)
        if keeping is not None:
            engine.keeps(keeping, spec.cache_bytes_per_token)
        return engine

    async def fitted(spec: RunnerSpec) -> LlamaEngine:
        """Starts it again without a flag that the program refuses, as long as the model can be loaded without that."""
        while True:
            try:
                return await start(spec)
            except EngineDied as error:
                refused = _REFUSED_FLAG.search(str(error))
                if not program or not refused or refused[1] not in SPARED.keys() - without:
                    raise
                without.add(refused[1])

    if not template_error:
        try:
            return await fitted(spec)
        except UnusableTemplateError as error:
            template_error = str(error)
    return await fitted(msgspec.structs.replace(spec, own_template=False))
