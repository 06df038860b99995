"""The GPUs of this machine, as the engine lists them. Knows no model."""

import asyncio
import json
import logging
import sys

from msgspec import Struct

log = logging.getLogger(__name__)


class Gpu(Struct, frozen=True):
    """A device the engine can compute on besides the CPU; sizes in bytes."""

    name: str
    description: str
    total: int
    free: int


_ASK_ENGINE = """
import json, xllamacpp
cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
rows = [d for d in xllamacpp.get_device_info() if d["type"] != cpu]
print("DEVICES " + json.dumps([[d["name"], d["description"], d["memory_total"], d["memory_free"]] for d in rows]))
"""


async def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs the engine sees, listed by a process of its own: drivers are heavy and may crash their process.

    None when the engine cannot list them; the log says why.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        _ASK_ENGINE,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            log.warning("the engine did not list its devices within a minute; going on without GPUs")
            return ()
        raise
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("DEVICES ")]
    if process.returncode != 0 or not lines:
        log.warning("the engine could not list its devices (exit status %s); going on without GPUs", process.returncode)
        return ()
    return tuple(Gpu(*row) for row in json.loads(lines[-1].removeprefix("DEVICES ")))
