"""Who made the graphics devices that the system lists, and which engine computes on them."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
"""PCI numbers of those who make GPUs that llama.cpp computes on."""

_OWN = {"NVIDIA": "cuda", "AMD": "rocm"}
"""The engine that is made for a maker's devices alone."""


def vendors(root: Path = Path("/")) -> list[str]:
    """Who has made the graphics devices that Linux lists; one entry a device."""
    found = []
    with suppress(OSError):
        for file in sorted((root / "sys/class/drm").glob("card*/device/vendor")):
            if "-" not in file.parent.parent.name:  # a connector, as card0-DP-1
                with suppress(OSError, UnicodeDecodeError):
                    found.append(VENDORS.get(file.read_text().strip(), ""))
    found = [name for name in found if name]
    if "NVIDIA" not in found and (root / "proc/driver/nvidia/version").exists():
        found.append("NVIDIA")
    return found


def advice(makers: Collection[str], kinds: Collection[str] = ()) -> str:
    """The command that changes it where the engine cannot use a device of these makers; empty where there is none.

    `kinds`: the engines whose packages or indexes are set; a maker's own among them is better than Vulkan's, which
    computes on every device. Intel's are in every processor of theirs: for those alone nothing is advised.
    """
    if all(maker == "Intel" for maker in makers):
        return ""
    own = (kind for maker, kind in _OWN.items() if maker in makers and kind in kinds)
    return f"corral engine install {next(own, 'vulkan')}"
