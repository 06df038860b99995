"""What this machine has: memory, cores and GPUs. Knows no model."""

import asyncio
import json
import logging
import math
import os
import sys
from pathlib import Path

import psutil
from msgspec import Struct

from corral import cgroups

log = logging.getLogger(__name__)

GIB = 1 << 30


class Gpu(Struct, frozen=True):
    """A device the engine can compute on besides the CPU; sizes in bytes."""

    name: str
    description: str
    total: int
    free: int


class Memory(Struct, frozen=True):
    """Main memory and GPUs at one moment; sizes in bytes."""

    total: int
    available: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def for_models(self) -> int:
        """Bytes that models may use in all: the GPUs' memory, or half of the main memory where there is none."""
        return sum(gpu.total for gpu in self.gpus) or self.total // 2


def memory(gpus: tuple[Gpu, ...] = (), root: Path = cgroups.ROOT) -> Memory:
    """Main memory as it is now, within what a container or a service is given of it; the GPUs as they were found."""
    now = psutil.virtual_memory()
    limit, free = cgroups.memory_limit(root)
    return Memory(int(min(now.total, limit)), int(min(now.available, free)), gpus)


def threads_here() -> int:
    """`threads` for this process on this machine."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return threads(psutil.cpu_count(logical=False), allowed, cgroups.cpu_limit())


def threads(physical: int | None, allowed: int, limit: float) -> int:
    """With how many threads a model should compute; 0 is the engine's own choice, one for each physical core.

    A model waits for its slowest thread, so threads beyond the cores we are `allowed` to use, or beyond a time `limit`
    in cores, cost far more than they bring.
    """
    most = min(allowed, max(1, math.ceil(limit)) if math.isfinite(limit) else allowed)
    return most if most < (physical or allowed) else 0


class Machine:
    """This machine: its memory at any moment, and its GPUs once they have been looked for."""

    def __init__(self) -> None:
        self._gpus: tuple[Gpu, ...] = ()
        self._search: asyncio.Task[tuple[Gpu, ...]] | None = None

    async def look(self) -> tuple[Gpu, ...]:
        """The GPUs. The first call looks for them, which takes a moment; it may be made long before it matters."""
        if self._search is None:
            self._search = asyncio.get_running_loop().create_task(find_gpus())
        self._gpus = await asyncio.shield(self._search)
        return self._gpus

    def memory(self) -> Memory:
        return memory(self._gpus)

    async def close(self) -> None:
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait({self._search})


_ASK_ENGINE = """
import json, xllamacpp
cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
rows = [d for d in xllamacpp.get_device_info() if d["type"] != cpu]
print("DEVICES " + json.dumps([[d["name"], d["description"], d["memory_total"], d["memory_free"]] for d in rows]))
"""


async def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs the engine sees, asked in a process of its own: drivers are heavy, and can take a process with them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        _ASK_ENGINE,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            log.warning("the engine did not list its devices within a minute; going on without GPUs")
            return ()
        raise
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("DEVICES ")]
    if process.returncode != 0 or not lines:
        log.warning("the engine could not list its devices (exit status %s); going on without GPUs", process.returncode)
        return ()
    return tuple(Gpu(*row) for row in json.loads(lines[-1].removeprefix("DEVICES ")))
