"""The processor: how many cores this process may use, and what keeps it from more."""

import math
import os
from collections.abc import Iterator

import psutil

from corral.doctor.findings import Finding
from corral.machine import cgroups
from corral.machine.threads import threads
from corral.system import processes

SUBJECT = "Processor"


def examine() -> Iterator[Finding]:
    """What is found on this machine, judged."""
    allowed = processes.cores()
    yield from judged(os.cpu_count() or 1, psutil.cpu_count(logical=False), allowed, cgroups.cpu_limit())


def judged(logical: int, physical: int | None, allowed: int, limit: float) -> Iterator[Finding]:
    """`logical` and `physical` cores there are, those that affinity allows, and a control group's limit in cores."""
    computing = threads(physical, allowed, limit) or physical or allowed
    yield Finding(SUBJECT, "ok", f"{_cores(physical or logical)}; a model computes with {_threads(computing)}")
    if allowed < logical:
        yield Finding(SUBJECT, "note", f"this process may use {allowed} of {logical} logical cores (affinity)")
    if math.isfinite(limit) and limit < logical:
        yield Finding(
            SUBJECT,
            "note",
            f"the control group gives the time of {limit:g} of {logical} logical cores",
            "a container gets more with `--cpus`, a service with CPUQuota=",
        )


def _cores(count: int) -> str:
    return f"{count} core" if count == 1 else f"{count} cores"


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"
