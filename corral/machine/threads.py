"""With how many threads a model should compute on this machine."""

import math
import os
import sys

import psutil

from corral.machine import cgroups


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
