"""What a container or a service may use of this machine: limits of Linux control groups, versions 1 and 2.

The limits of a process are those of its own group and of all groups above it. Only Linux has any.
Source: the kernel's documentation, admin-guide/cgroup-v2 and cgroup-v1.
"""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")

NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as a number of bytes above this."""


def cpu_limit(root: Path = ROOT) -> float:
    """How many cores' worth of time there is; infinity without a limit."""
    return min((_cores(folder) for folder in _groups(root, "cpu")), default=math.inf)


def memory_limit(root: Path = ROOT) -> tuple[float, float]:
    """Bytes the tightest group may use, and how many of them are free; both infinity without a limit.

    What the kernel would give back when asked, such as pages of files, counts as free.
    """
    found = [(limit, limit - used) for limit, used in map(_memory, _groups(root, "memory")) if limit < NO_LIMIT]
    if not found:
        return math.inf, math.inf
    return min(limit for limit, _ in found), max(0.0, min(free for _, free in found))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of our group and of those above it, in both versions, as far as they can be seen from here."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controllers if controllers else mount
        folder = top / path.strip("/")
        if ".." not in folder.parts:
            yield from (each for each in (folder, *folder.parents) if each == top or top in each.parents)


def _cores(folder: Path) -> float:
    """`cpu.max` holds quota and period in microseconds, version 1 the same in two files."""
    both = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us"),
        _read(folder / "cpu.cfs_period_us"),
    ]
    quota, period = (_number(text) for text in both[:2]) if len(both) > 1 else (math.inf, math.inf)
    return quota / period if 0 < quota < math.inf and 0 < period < math.inf else math.inf


def _memory(folder: Path) -> tuple[float, float]:
    """Limit and use in bytes."""
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (most := _number(_read(folder / limit))) < NO_LIMIT:
            held = _number(_read(folder / used)) - _stat(folder, reclaimable)
            return most, max(0.0, held) if math.isfinite(held) else 0.0
    return math.inf, 0.0


def _stat(folder: Path, field: str) -> float:
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == field:
            return _number(value)
    return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> float:
    """The number; infinity for `max`, for nothing and for what is no number of this kind."""
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else math.inf
