"""GPUs: those of the system, and whether the engine can compute on them."""

from collections.abc import Collection, Iterator, Sequence

from corral.config import Config
from corral.doctor.engine import Probe
from corral.doctor.findings import Finding
from corral.golang.units import byte_text
from corral.machine.makers import advice, vendors

SUBJECT = "GPU"


def examine(probe: Probe, config: Config) -> Iterator[Finding]:
    """What the engine lists, beside what the system has."""
    yield from judged(probe, vendors(), config.engine_indexes.keys() | config.engine_packages.keys())


def judged(probe: Probe, found: Sequence[str], kinds: Collection[str] = ()) -> Iterator[Finding]:
    """`found`: the makers of the system's devices; `kinds`: the engines whose packages or indexes are set."""
    for gpu in probe.gpus:
        kind = ", a part of the main memory" if gpu.shared else ""
        text = f"{gpu.name}, {gpu.description}: {byte_text(gpu.free)} of {byte_text(gpu.total)} are free{kind}"
        yield Finding(SUBJECT, "ok", text)
    if probe.gpus:
        return
    makers = ", ".join(dict.fromkeys(found))
    if command := advice(found, kinds):
        yield Finding(
            SUBJECT,
            "note",
            f"the system has a GPU ({makers}), but the engine computes on the processor only",
            f"`{command}` fetches an engine for it and tries it; its driver has to be installed",
        )
    else:
        yield Finding(SUBJECT, "ok", "none that the engine could use: models are computed on the processor")
