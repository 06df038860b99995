"""Memory: what there is for models, and how much context one gets with it."""

from collections.abc import Iterator, Sequence

from corral.config import Config
from corral.doctor.findings import Finding
from corral.golang.units import byte_text
from corral.machine import cgroups
from corral.machine.gpus import Gpu
from corral.machine.memory import GIB, Memory, memory
from corral.serving.spec import usual_context

SUBJECT = "Memory"

LITTLE = 2 * GIB
"""Free memory below which hardly a model of use can be loaded."""
TYPICAL_CACHE = 128 << 10
"""Bytes that a model of eight billion parameters keeps of a token in its cache."""


def examine(config: Config, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """What is found on this machine, judged."""
    limit, _ = cgroups.memory_limit()
    yield from judged(config, memory(tuple(gpus)), limit)


def judged(config: Config, now: Memory, limit: float) -> Iterator[Finding]:
    """`limit`: bytes that a control group gives, infinite without one."""
    text = f"{byte_text(now.available)} of {byte_text(now.total)} are free"
    if now.available < LITTLE:
        remedy = "end other programs, or stop models: `corral ps`, `corral stop MODEL`"
        yield Finding(SUBJECT, "note", f"{text}: enough for small models only", remedy)
    else:
        yield Finding(SUBJECT, "ok", text)
    if limit <= now.total:
        remedy = "a container gets more with `--memory`, a service with MemoryMax="
        yield Finding(SUBJECT, "note", f"the control group gives {byte_text(int(limit))}", remedy)
    tokens = usual_context(config, now, TYPICAL_CACHE)
    why = "OLLAMA_CONTEXT_LENGTH says so" if config.context_length else "by the memory there is"
    remedy = "for more: OLLAMA_CONTEXT_LENGTH, or PARAMETER num_ctx in a Modelfile"
    yield Finding(
        SUBJECT, "ok", f"a model of eight billion parameters gets a context of {tokens} tokens, {why}", remedy
    )
