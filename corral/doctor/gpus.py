"""GPUs: those of the system, and whether the engine can compute on them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from corral.doctor.engine import Probe
from corral.doctor.findings import Finding
from corral.golang.units import byte_text

SUBJECT = "GPU"

VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
"""PCI numbers of those who make GPUs that llama.cpp computes on."""


def examine(program: str, probe: Probe) -> Iterator[Finding]:
    """`program`: another llama-server, which lists its devices only when it loads a model."""
    yield from judged(program, probe, vendors())


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


def judged(program: str, probe: Probe, found: Sequence[str]) -> Iterator[Finding]:
    """`found`: the makers of the system's devices."""
    for gpu in probe.gpus:
        text = f"{gpu.description or gpu.name}: {byte_text(gpu.free)} of {byte_text(gpu.total)} are free"
        yield Finding(SUBJECT, "ok", text)
    if probe.gpus:
        return
    makers = ", ".join(dict.fromkeys(found))
    if program:
        yield Finding(SUBJECT, "note", "which GPUs the llama-server of CORRAL_ENGINE uses shows when it loads a model")
    elif [maker for maker in found if maker != "Intel"]:
        yield Finding(
            SUBJECT,
            "note",
            f"the system has a GPU ({makers}), but the engine computes on the processor only",
            "for a GPU set CORRAL_ENGINE to a llama-server that was built for it, and see that its driver works",
        )
    else:
        yield Finding(SUBJECT, "ok", "none that the engine could use: models are computed on the processor")
