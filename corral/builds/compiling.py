"""One compilation of llama-server, in a job's process: configured, compiled, with a log and progress.

The compilers run in a process group of their own, which ends with the job. A job has a low priority already.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from corral.background import Report
from corral.builds.flags import COMMON
from corral.builds.tools import Compilers, Makers
from corral.children import environment
from corral.errors import DiskFull, EngineError, OutOfMemory
from corral.messages import Progress
from corral.system import processes

TARGET = "llama-server"
COMPILING = "compiling"
"""The `digest` of steps that count what is compiled instead of bytes."""

SHOWN_LINES = 8
_EVERY = 0.1
_GRACE = 5.0

_NINJA = re.compile(rb"\[(\d+)/(\d+)\] ")
_MAKE = re.compile(rb"\[ *(\d+)%\] ")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_NO_MEMORY = re.compile(r"Killed signal terminated program|virtual memory exhausted|cc1plus: out of memory", re.I)
_CAUSE = re.compile(r"\berror\b[: ]|CMake Error|undefined reference", re.I)


def compile(
    source: Path,
    folder: Path,
    log: Path,
    compilers: Compilers,
    makers: Makers,
    options: tuple[str, ...],
    number: str,
    jobs: int,
    report: Report,
) -> Path:
    """Compiles llama-server from `source` in `folder`; the program's path. Called again with other `options`, it makes
    anew only what they change. `number` is llama.cpp's own, `1234`; `jobs` compilers run at once.

    What is printed is added to `log`. `EngineError` with the last lines when it fails; `DiskFull`, `OutOfMemory`.
    """
    settings = [*COMMON, *options, f"CMAKE_C_COMPILER={compilers.c}", f"CMAKE_CXX_COMPILER={compilers.cpp}"]
    settings += [f"CMAKE_MAKE_PROGRAM={makers.maker}"] + ([f"LLAMA_BUILD_NUMBER={number}"] if number else [])
    generator = "Ninja" if makers.is_ninja else "Unix Makefiles"
    report(Progress("configuring"))
    configure = [makers.cmake, "-S", str(source), "-B", str(folder), "-G", generator]
    _run([*configure, *(f"-D{setting}" for setting in settings)], log, lambda line: None)
    _run([makers.maker, "-C", str(folder), f"-j{jobs}", TARGET], log, _counter(report))
    program = folder / "bin" / TARGET
    if not os.access(program, os.X_OK):
        raise EngineError(f'compiling made no "{TARGET}"; the log is "{log}"')
    return program


def _counter(report: Report) -> Callable[[bytes], None]:
    """Reports the counters of ninja and make, ten times a second at most, and the last one."""
    last = 0.0

    def count(line: bytes) -> None:
        nonlocal last
        if found := _NINJA.match(line):
            done, total = int(found[1]), int(found[2])
        elif found := _MAKE.match(line):
            done, total = int(found[1]), 100
        else:
            return
        if done == total or time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            report(Progress(COMPILING, COMPILING, total, done))

    return count


def _run(command: Sequence[str], log: Path, read: Callable[[bytes], None]) -> None:
    with open(log, "ab") as output, _started(command) as process:
        output.write(f"$ {' '.join(command)}\n".encode(errors="replace"))
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            output.flush()
            read(line)
        status = process.wait()
    if status:
        raise _failure(log, status)


@contextmanager
def _started(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A child in a process group of its own, which is ended with the block."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment(), "LC_ALL": "C", "NINJA_STATUS": "[%f/%t] "},
        **processes.GROUPS.options,
        preexec_fn=_end_with_parent,
    )
    try:
        yield process
    finally:
        processes.end(process, _GRACE)


def _end_with_parent() -> None:
    """When this process is killed, ninja is asked to end, and asks its compilers."""
    processes.signal_at_parents_end(signal.SIGTERM)


def _failure(log: Path, status: int) -> EngineError | DiskFull | OutOfMemory:
    text = _end_of(log)
    if _FULL.search(text):
        return DiskFull("no space left on the disk while the engine was compiled")
    if _NO_MEMORY.search(text):
        return OutOfMemory("not enough memory to compile the engine; fewer compilers at once take less: --jobs 1")
    lines = [line for line in text.splitlines() if line.strip()]
    first = next((place for place, line in enumerate(lines) if _CAUSE.search(line)), len(lines) - SHOWN_LINES)
    shown = "\n".join(f"  {line[:300]}" for line in lines[max(0, first) : max(0, first) + SHOWN_LINES])
    return EngineError(f'the engine could not be compiled (exit status {status}); the log is "{log}"\n{shown}')


def _end_of(log: Path) -> str:
    with open(log, "rb") as opened:
        opened.seek(max(0, log.stat().st_size - (1 << 18)))
        return opened.read().decode(errors="replace")
