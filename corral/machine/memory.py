"""Main memory as it is now, within the limits of a container or a service. Sizes in bytes."""

from pathlib import Path

import psutil
from msgspec import Struct

from corral.machine import cgroups
from corral.machine.gpus import Gpu

GIB = 1 << 30


class Memory(Struct, frozen=True):
    """Main memory and GPUs at one moment; sizes in bytes."""

    total: int
    available: int
    """What new allocations may take without swapping."""
    gpus: tuple[Gpu, ...] = ()

    @property
    def for_models(self) -> int:
        """Bytes that models may use in all: the GPUs' memory, or half of the main memory where there is none."""
        return sum(gpu.total for gpu in self.gpus) or self.total // 2


def memory(gpus: tuple[Gpu, ...] = (), root: Path = cgroups.ROOT) -> Memory:
    """Main memory as it is now, within the limits of the control groups under `root`; `gpus` are passed on."""
    now = psutil.virtual_memory()
    limit, free = cgroups.memory_limit(root)
    return Memory(int(min(now.total, limit)), int(min(now.available, free)), gpus)
