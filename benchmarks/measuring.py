"""What all benchmarks print of the machine and of the command, and how they time another program."""

import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path


def header() -> str:
    """The command and the machine it runs on, with the load it has already: two lines."""
    model = platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    load = " ".join(f"{part:.1f}" for part in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    machine = f"{os.cpu_count()} cores, {model}, {platform.system()}, Python {platform.python_version()}, load {load}"
    return f"$ {shlex.join(['python', *sys.argv])}\n{machine}"


def timed(command: str) -> float:
    """Seconds a shell command takes."""
    start = time.perf_counter()
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def speed(size: int, seconds: float) -> str:
    return f"{size / seconds / 1e6:.0f} MB/s"
