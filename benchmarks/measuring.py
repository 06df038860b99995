"""What all benchmarks print of the machine and of the command, how they begin, and how they time another program."""

import argparse
import asyncio
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any


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


def run_with_model(
    run: Callable[[Path, int, float], Coroutine[Any, Any, None]],
    description: str | None,
    *,
    rounds: int,
    window: float,
    watched: str,
) -> None:
    """Runs what needs a model's file, in so many rounds, with windows of so many seconds: the command line says which.

    `watched`: what the seconds of a window are for.
    """
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--rounds", type=int, default=rounds)
    arguments.add_argument("--window", type=float, default=window, help=f"seconds {watched}")
    given = arguments.parse_args()
    print(header(), end="\n\n")
    asyncio.run(run(given.model.absolute(), given.rounds, given.window))


def timed(command: str) -> float:
    """Seconds a shell command takes."""
    start = time.perf_counter()
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def speed(size: int, seconds: float) -> str:
    return f"{size / seconds / 1e6:.0f} MB/s"
