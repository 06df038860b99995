"""The engine: which one it is, whether it starts at all, and whether it was built for this processor."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from corral.builds import tools
from corral.doctor.findings import Finding
from corral.engine import libraries, wheels
from corral.engine.choice import Engine
from corral.engine.program import printed
from corral.errors import NotFound
from corral.machine import gpus
from corral.machine.gpus import Gpu

SUBJECT = "Engine"
SECONDS = 60.0
"""How long the child may take: drivers of GPUs are slow to start."""

_ASK = """
import json, sys
sys.path[:0] = sys.argv[1:]
import xllamacpp
print("ABOUT " + json.dumps({
    "version": xllamacpp.__version__,
    "build": getattr(xllamacpp, "BUILD_INFO", {}),
    "system": xllamacpp.get_system_info(),
}))
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the engine says of itself; `error` is why it says nothing."""

    version: str = ""
    build: str = ""
    features: frozenset[str] = frozenset()
    """Those of processors that it was built for, as it names them: `AVX2`."""
    gpus: tuple[Gpu, ...] = ()
    error: str = ""
    lines: Sequence[str] = field(default=(), repr=False)
    """What another llama-server printed about itself."""


def probe(program: str, seconds: float = SECONDS) -> Probe:
    """Asks the engine in a child process; `program` is another engine, empty for our own."""
    is_program = bool(program) and not wheels.is_wheel(program)
    command = [program, "--version"] if is_program else [sys.executable, "-P", "-c", _ASK, *filter(None, [program])]
    lines, problem = printed(command, seconds)
    if problem:
        return Probe(error=problem + "".join(f": {line.strip()}" for line in lines[-1:]))
    found = other_probe(lines) if is_program else own_probe(lines)
    if found.error:
        return found
    devices, unknown = printed(gpus.command(program), seconds)
    return replace(found, gpus=() if unknown else gpus.listed(devices))


def own_probe(lines: Sequence[str]) -> Probe:
    """From what our child printed."""
    for line in lines:
        if line.startswith("ABOUT "):
            said: dict[str, Any] = json.loads(line.removeprefix("ABOUT "))
            return Probe(said["version"], build_text(said["build"]), features_of(said["system"]))
    return Probe(error="it says nothing of itself")


def build_text(info: Mapping[str, Any]) -> str:
    """What the wheel knows of its build: `b1234, Linux x86_64, GNU 10.2.1`."""
    number = info.get("build_number")
    parts = (f"b{number}" if number else "", info.get("build_target"), info.get("compiler"))
    return ", ".join(str(part) for part in parts if part)


def other_probe(lines: Sequence[str]) -> Probe:
    """From what `llama-server --version` prints: `version: 1234 (abcdef)`, `built with …`."""
    version = next((line.partition(":")[2].strip() for line in lines if line.startswith("version:")), "")
    build = next((line.strip() for line in lines if line.startswith("built with")), "")
    return (
        Probe(version, build, lines=tuple(lines)) if version else Probe(error="it prints no version: no llama-server?")
    )


def features_of(text: str) -> frozenset[str]:
    """The names that are on in `CPU : SSE3 = 1 | AVX2 = 1 | …`."""
    return frozenset(re.findall(r"(\w+) = 1\b", text))


PROCESSOR_NAMES = {
    "SSE3": ("pni", "sse3"),
    "SSSE3": ("ssse3",),
    "AVX": ("avx",),
    "AVX2": ("avx2",),
    "F16C": ("f16c",),
    "FMA": ("fma",),
    "BMI2": ("bmi2",),
    "AVX_VNNI": ("avx_vnni",),
    "AVX512": ("avx512f",),
    "AVX512_VBMI": ("avx512vbmi",),
    "AVX512_VNNI": ("avx512_vnni",),
    "AVX512_BF16": ("avx512_bf16",),
    "AMX_INT8": ("amx_int8",),
    "NEON": ("asimd", "neon"),
    "DOTPROD": ("asimddp",),
    "MATMUL_INT8": ("i8mm",),
    "SVE": ("sve",),
}
"""llama.cpp's names of features, and those that Linux has for them."""


def can_build() -> bool:
    """Whether this machine has what `corral engine build` cannot fetch: compilers."""
    try:
        tools.compilers()
    except NotFound:
        return False
    return True


def examine(used: Engine, found: Probe, processor: frozenset[str], *, can_build: bool) -> Iterator[Finding]:
    """`used`: the engine that models are loaded with; `processor`: the features that the system lists, empty where it
    lists none; `can_build`: whether there are compilers."""
    if used.remark:
        yield Finding(SUBJECT, "note", f"the engine of the wheel is used: {used.remark}")
    if found.error:
        yield Finding(
            SUBJECT, "wrong", f"the engine does not work: {found.error}", libraries.advice(found.error) or _remedy(used)
        )
        return
    if used.program:
        how = "CORRAL_ENGINE" if used.name == "CORRAL_ENGINE" else f"chosen with `corral engine use {used.name}`"
        what = "xllamacpp" if wheels.is_wheel(used.program) else "llama-server"
        yield Finding(SUBJECT, "ok", f'{what} {found.version} at "{used.program}" ({how})')
        return
    build = f" ({found.build})" if found.build else ""
    yield Finding(SUBJECT, "ok", f"llama.cpp from xllamacpp {found.version}{build}")
    yield from judged_features(found.features, processor, can_build=can_build)


def _remedy(used: Engine) -> str:
    if not used.program:
        return "install it anew: `pip install --force-reinstall xllamacpp`, in the version that Corral asks for"
    if used.name == "CORRAL_ENGINE":
        return f'CORRAL_ENGINE is "{used.program}": mend it, or unset it for the engine that Corral brings along'
    return "`corral engine use wheel` goes back to the engine that Corral brings along"


def judged_features(built_for: frozenset[str], processor: frozenset[str], *, can_build: bool) -> Iterator[Finding]:
    """Whether an engine that was built for some features runs on a processor with others, and what it leaves unused."""
    known = {name for name in PROCESSOR_NAMES if name in built_for}
    if not processor or not known:
        return
    has = {name for name, others in PROCESSOR_NAMES.items() if processor.intersection(others)}
    if lacking := known - has:
        yield Finding(
            SUBJECT,
            "wrong",
            f"the engine was built for {_listed(lacking)}, which this processor does not have: no model will run",
            "set CORRAL_ENGINE to a llama-server that was built on this machine",
        )
        return
    yield Finding(SUBJECT, "ok", f"built for {_listed(known)}, which this processor has")
    if unused := {name for name in has - known if name not in ("SSE3", "SSSE3")}:
        first = "" if can_build else f"{tools.advice()}; then "
        yield Finding(
            SUBJECT,
            "note",
            f"this processor also has {_listed(unused)}, which the engine was not built for",
            f"one built on this machine may be faster: {first}`corral engine build` makes it and tries it",
        )


def _listed(names: set[str]) -> str:
    return ", ".join(name for name in PROCESSOR_NAMES if name in names)
