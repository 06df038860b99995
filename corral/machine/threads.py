"""How many threads a model should compute with on this machine."""

import math

import psutil

from corral.machine import cgroups
from corral.system import processes


def threads_here() -> int:
    """`threads` for this process on this machine: its affinity and its control groups' limit of processor time."""
    return threads(psutil.cpu_count(logical=False), processes.cores(), cgroups.cpu_limit())


def cores_here() -> int:
    """The cores that this process may use: those it may run on, as far as its control groups give it their time."""
    return _cores(processes.cores(), cgroups.cpu_limit())


def _cores(allowed: int, limit: float) -> int:
    return min(allowed, max(1, math.ceil(limit)) if math.isfinite(limit) else allowed)


def threads(physical: int | None, allowed: int, limit: float) -> int:
    """How many threads a model should compute with; 0: the engine's own choice, one for each `physical` core.

    A model waits for its slowest thread. So threads beyond the cores that this process is `allowed` to use, or beyond
    a `limit` of processor time (in cores, infinite without one), cost far more than they bring.
    """
    most = _cores(allowed, limit)
    return most if most < (physical or allowed) else 0
