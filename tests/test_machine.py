"""Limits of control groups, read from folders laid out as the kernel lays them out."""

import math
from pathlib import Path

import pytest

from corral.machine import cgroups
from corral.machine.memory import memory as main_memory
from corral.machine.threads import threads

GIB = 1 << 30


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CONTAINER = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\n",
}
SERVICE = {
    "proc/self/cgroup": "0::/system.slice/corral.service\n",
    "sys/fs/cgroup/system.slice/cpu.max": "300000 100000\n",
    "sys/fs/cgroup/system.slice/memory.max": f"{8 * GIB}\n",
    "sys/fs/cgroup/system.slice/memory.current": f"{7 * GIB}\n",
    "sys/fs/cgroup/system.slice/corral.service/cpu.max": "max 100000\n",
    "sys/fs/cgroup/system.slice/corral.service/memory.max": f"{6 * GIB}\n",
    "sys/fs/cgroup/system.slice/corral.service/memory.current": f"{2 * GIB}\n",
}
FIRST_VERSION = {
    "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",  # a container sees its own group at the top
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
}
UNLIMITED = {
    "proc/self/cgroup": "4:memory:/\n1:cpu:/\n0::/\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/cpu.max": "max 100000\n",
}
SPOILED = {
    "proc/self/cgroup": "0::/../../etc\nnonsense\n7:\n:::\n",
    "sys/fs/cgroup/cpu.max": "0 0 x\n",
    "sys/fs/cgroup/memory.max": "a lot\n",
}


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        (CONTAINER, 1.5, (4 * GIB, 2 * GIB)),
        (SERVICE, 3.0, (6 * GIB, GIB)),
        (FIRST_VERSION, 2.0, (2 * GIB, GIB)),
        (UNLIMITED, math.inf, (math.inf, math.inf)),
        (SPOILED, math.inf, (math.inf, math.inf)),
        ({}, math.inf, (math.inf, math.inf)),
    ],
    ids=["container", "service", "first-version", "unlimited", "spoiled", "none"],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, files: dict[str, str], cores: float, memory: tuple[float, float]
) -> None:
    root = lay(tmp_path, files)
    assert cgroups.cpu_limit(root) == cores
    assert cgroups.memory_limit(root) == memory


def test_memory_is_what_the_group_leaves(tmp_path: Path) -> None:
    machine = main_memory(root=lay(tmp_path, {**CONTAINER, "sys/fs/cgroup/memory.max": "1000000\n"}))
    assert (machine.total, machine.available) == (1_000_000, 0)


@pytest.mark.parametrize(
    ("physical", "allowed", "limit", "expected"),
    [
        (8, 16, math.inf, 0),
        (8, 8, 8.0, 0),
        (8, 16, 1.5, 2),
        (8, 16, 0.2, 1),
        (8, 3, math.inf, 3),
        (8, 3, 2.0, 2),
        (None, 4, math.inf, 0),
        (None, 16, 2.0, 2),
    ],
)
def test_a_model_computes_with_no_more_threads_than_it_has_cores_for(
    physical: int | None, allowed: int, limit: float, expected: int
) -> None:
    assert threads(physical, allowed, limit) == expected
