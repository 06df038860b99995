"""What the system lists of the processor."""

import platform
from contextlib import suppress
from pathlib import Path

from corral.machine.threads import cores_here


def name(root: Path = Path("/")) -> str:
    """The processor as the system calls it, with the cores that this process may use."""
    found = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() == "model name":
                found = value.strip()
                break
    return f"{found}, {cores_here()} cores"


def features(root: Path = Path("/")) -> frozenset[str]:
    """The features that Linux lists of the first core (`avx2`); empty elsewhere."""
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                return frozenset(value.split())
    return frozenset()
