"""What the system lists of the processor."""

from contextlib import suppress
from pathlib import Path


def features(root: Path = Path("/")) -> frozenset[str]:
    """The features that Linux lists of the first core (`avx2`); empty elsewhere."""
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                return frozenset(value.split())
    return frozenset()
