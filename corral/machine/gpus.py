"""The GPUs of this machine, as an engine lists them. Knows no model."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from corral import children
from corral.errors import reason_of

log = logging.getLogger(__name__)

SECONDS = 60.0
"""How long listing may take: drivers are slow to start."""

MOST = 64
"""Devices that are looked at."""

_ROW = re.compile(r"\s+([A-Za-z0-9_:.-]{1,40}): (.{0,200}) \((\d{1,12}) MiB, (\d{1,12}) MiB free\)\s*")
"""A device of `llama-server --list-devices`."""

_SHARED = re.compile(r"MTL|Metal")
"""Names of devices that have no memory of their own."""


class Gpu(Struct, frozen=True):
    """A device the engine can compute on besides the CPU; sizes in bytes."""

    name: str
    description: str
    total: int
    free: int
    """What no other program holds, as far as the driver says."""
    shared: bool = False
    """Whether its memory is part of the main memory."""


_ASK_ENGINE = """
import json, sys
sys.path[:0] = sys.argv[1:]
import xllamacpp
kinds = xllamacpp.ggml_backend_dev_type
own, shared = kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU
rows = [d for d in xllamacpp.get_device_info() if d["type"] in (own, shared)]
print("DEVICES " + json.dumps(
    [[d["name"], d["description"], d["memory_total"], d["memory_free"], d["type"] == shared] for d in rows]
))
"""


def command(program: str) -> Sequence[str]:
    """What lists the devices; `program`: a llama-server, a folder with a wheel, or empty for our own wheel."""
    if program and not Path(program).is_dir():
        return [program, "--list-devices"]
    return [sys.executable, "-P", "-c", _ASK_ENGINE, *filter(None, [program])]


def listed(lines: Iterable[str]) -> tuple[Gpu, ...]:
    """The devices in what either command prints; what is no device is passed over."""
    return tuple(_listed(lines))[:MOST]


def _listed(lines: Iterable[str]) -> Iterator[Gpu]:
    for line in lines:
        if line.startswith("DEVICES "):
            for name, description, total, free, shared in json.loads(line.removeprefix("DEVICES ")):
                yield Gpu(name, description, total, min(free, total), shared or bool(_SHARED.match(name)))
        elif found := _ROW.fullmatch(line):
            name, description, total, free = found.groups()
            size = int(total) << 20
            yield Gpu(name, description, size, min(size, int(free) << 20), bool(_SHARED.match(name)))


async def find_gpus(program: str = "", seconds: float = SECONDS) -> tuple[Gpu, ...]:
    """The GPUs the engine sees, listed by a process of its own: drivers are heavy and may crash their process.

    None when the engine cannot list them; the log says why.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command(program),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=children.environment(),
        )
    except OSError as error:
        log.warning("the engine cannot be asked for its devices: %s", reason_of(error))
        return ()
    try:
        output, _ = await asyncio.wait_for(process.communicate(), seconds)
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            log.warning("the engine did not list its devices within %g seconds; going on without GPUs", seconds)
            return ()
        raise
    lines = output[: 1 << 20].decode("utf-8", "replace").splitlines()
    if process.returncode != 0:
        level = logging.INFO if program else logging.WARNING  # an old llama-server knows no such question
        log.log(level, "the engine could not list its devices (exit status %s); no GPUs", process.returncode)
        return ()
    return listed(lines)
