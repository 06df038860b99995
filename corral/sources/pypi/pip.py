"""Running pip to fetch one package. Knows pip's options and what it prints; what is in a package is others' business.

pip does the work as it is configured on this machine: indexes, mirrors, proxies, local folders, credentials. Part of
that configuration is in environment variables, so pip gets our whole environment; nothing else here reads it.
"""

import asyncio
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corral.config import child_environment
from corral.errors import DiskFull, NotFound, SourceError, Unreachable
from corral.system.processes import GROUPS

_WATCH_SECONDS = 0.2
_TERMINATE_SECONDS = 5.0
_KEPT_LINES = 200
_RAW_PROGRESS_SINCE = (24, 1)

_VERSION = re.compile(r"pip (\d+)\.(\d+)")
_RAW = re.compile(r"Progress (\d+) of (\d+)\s*\Z")
_ANNOUNCED = re.compile(r"\s*Downloading (\S+)(?: \(([0-9.]+) (bytes|kB|MB|GB)\))?\s*\Z")
_UNITS = {"bytes": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}


@dataclass(frozen=True, slots=True)
class Fetched:
    """How far a download is. `total` is 0 until pip has printed it; older versions round it."""

    name: str
    completed: int
    total: int


Kind = Literal["wheel", "source distribution"]

_OPTIONS: dict[Kind, str] = {"wheel": "--only-binary", "source distribution": "--no-binary"}
_ENDINGS: dict[Kind, str] = {"wheel": ".whl", "source distribution": ".tar.gz"}


async def download(
    requirement: str, folder: Path, kind: Kind = "wheel", index: str = ""
) -> AsyncGenerator[Fetched, None]:
    """Fetches a package into `folder / "wheel"`, where `folder` is empty; the last step is the finished file.

    `index` is the address of the only index that is asked; empty: those that pip is configured for. pip runs the build
    program of a source distribution to learn its name. Closing the iterator ends pip. `NotFound`
    when there is no such package or none of that kind, `Unreachable`, `DiskFull`, `SourceError`.
    """
    package = ":all:" if kind == "wheel" else re.split(r"[^\w.-]", requirement)[0]
    options = ["--no-deps", f"{_OPTIONS[kind]}={package}", "--no-cache-dir"]
    async with aclosing(_download([requirement], folder, options, kind, index)) as steps:
        async for step in steps:
            yield step
    files = sorted((folder / "wheel").glob(f"*{_ENDINGS[kind]}"))
    if len(files) != 1:
        raise SourceError(f'pip brought {len(files)} {kind}s for "{requirement}"')
    size = files[0].stat().st_size
    yield Fetched(files[0].name, size, size)


async def download_all(
    requirements: Sequence[str], folder: Path, options: Sequence[str]
) -> AsyncGenerator[Fetched, None]:
    """Fetches wheels of packages and of all that they need into `folder / "wheel"`, where `folder` is empty.

    `options` are pip's that say for which platform. Errors: as of `download`.
    """
    async with aclosing(_download(requirements, folder, ["--only-binary=:all:", *options], "wheel")) as steps:
        async for step in steps:
            yield step


async def _download(
    requirements: Sequence[str], folder: Path, options: Sequence[str], kind: Kind, index: str = ""
) -> AsyncGenerator[Fetched, None]:
    command = await find_pip()
    target, temporary = folder / "wheel", folder / "tmp"
    temporary.mkdir()
    arguments = ["download", *options, "--no-input", "--disable-pip-version-check"]
    arguments += ["--progress-bar", "raw" if command.is_raw else "off"]
    environment = child_environment(
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)),
        PYTHONUNBUFFERED="1",
        PYTHONIOENCODING="utf-8",
        NO_COLOR="1",
    )
    if index:
        # Not an argument, which other users see; one more in pip's configuration may have the same version for the CPU.
        environment["PIP_INDEX_URL"] = environment["PIP_EXTRA_INDEX_URL"] = index
    run = [*command.words, *arguments, "--dest", str(target), "--", *requirements]
    output: list[str] = []
    async with (
        _running(run, environment, folder) as process,
        aclosing(_watched(process, command.is_raw, temporary)) as steps,
    ):
        async for step in steps:
            if isinstance(step, Fetched):
                yield step
            else:
                output = step
    if process.returncode:
        raise _failure(requirements[0] if len(requirements) == 1 else "", kind, output)


@dataclass(frozen=True, slots=True)
class Pip:
    words: tuple[str, ...]
    is_raw: bool
    """Whether it prints its progress in plain numbers."""


async def find_pip() -> Pip:
    """The pip of our own environment, or else one on the path."""
    others = [path for path in map(shutil.which, ("pip3", "pip")) if path]
    for words in ((sys.executable, "-P", "-m", "pip"), *((path,) for path in others)):
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                "--version",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            continue
        output, _ = await process.communicate()
        if match := _VERSION.match(output.decode(errors="replace")):
            return Pip(words, (int(match[1]), int(match[2])) >= _RAW_PROGRESS_SINCE)
    raise SourceError(f"pip is needed to fetch a Python package, and is missing\ntry: {sys.executable} -m ensurepip")


@asynccontextmanager
async def _running(
    command: Sequence[str], environment: dict[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child in a process group of its own, which is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **GROUPS.options,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            GROUPS.end(process)
            try:
                async with asyncio.timeout(_TERMINATE_SECONDS):
                    await process.wait()
            except TimeoutError:
                GROUPS.end(process, kill=True)
                await process.wait()


async def _watched(
    process: asyncio.subprocess.Process, is_raw: bool, temporary: Path
) -> AsyncGenerator[Fetched | list[str], None]:
    """Each step of the download while pip runs, and at last the lines it printed."""
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    name, total, completed = "", 0, 0
    async with aclosing(_lines(process)) as printed:
        async for line in printed:
            if line is not None and (match := _RAW.match(line)):
                completed, total = int(match[1]), int(match[2])
            elif line is not None:
                lines.append(line)
                if match := _ANNOUNCED.match(line):
                    name, completed = match[1].rsplit("/", 1)[-1], 0
                    total = int(float(match[2]) * _UNITS[match[3]]) if match[2] else 0
            elif not is_raw:
                completed = max(completed, _size_of_packages(temporary))
            if name and total:
                yield Fetched(name, min(completed, total), total)
    await process.wait()
    yield list(lines)


async def _lines(process: asyncio.subprocess.Process) -> AsyncGenerator[str | None, None]:
    """The child's lines; None every moment in which it printed nothing."""
    assert process.stdout is not None
    rest = b""
    reading = asyncio.ensure_future(process.stdout.read(1 << 16))
    try:
        while True:
            done, _ = await asyncio.wait([reading], timeout=_WATCH_SECONDS)
            if not done:
                yield None
                continue
            if not (data := reading.result()):
                break
            reading = asyncio.ensure_future(process.stdout.read(1 << 16))
            *whole, rest = re.split(rb"[\r\n]+", rest + data)
            for line in whole:
                yield line.decode(errors="replace")
            rest = rest[-4096:]
        if rest:
            yield rest.decode(errors="replace")
    finally:
        reading.cancel()


def _size_of_packages(temporary: Path) -> int:
    """Bytes of the files that pip has begun; it removes folders meanwhile."""
    total = 0
    for folder, _, names in os.walk(temporary):
        for name in names:
            if name.endswith(tuple(_ENDINGS.values())):
                with suppress(OSError):
                    total += Path(folder, name).stat().st_size
    return total


_NO_NETWORK = re.compile(
    r"Failed to establish a new connection|Retrying \(|Could not fetch URL|Connection (?:reset|aborted|broken)"
    r"|Read timed out|Max retries exceeded|ProxyError|SSLError|Name or service not known|Network is unreachable",
    re.IGNORECASE,
)
_MISSING = re.compile(r"No matching distribution found|Could not find a version that satisfies")
_FULL = re.compile(r"No space left on device|Disk quota exceeded|not enough space on the disk", re.IGNORECASE)
_BROKEN = re.compile(
    r"has an invalid wheel|is invalid|not a zip file|BadZipFile|DO NOT MATCH THE HASHES", re.IGNORECASE
)


def _failure(requirement: str, kind: Kind, lines: Iterable[str]) -> SourceError | NotFound | DiskFull:
    """Why pip failed, from the lines it printed."""
    text = "\n".join(lines)
    if not requirement:
        named = re.search(r"No matching distribution found for ([^\s;]+)", text)
        requirement = named[1] if named else "Corral's dependencies"
    last = next((line.strip() for line in reversed(text.splitlines()) if line.startswith("ERROR:")), "")
    if _FULL.search(text):
        return DiskFull(f'no space left on the disk while fetching the package "{requirement}"')
    if _NO_NETWORK.search(text):
        return Unreachable(f'the package index cannot be reached to fetch "{requirement}"')
    if _MISSING.search(text):
        return NotFound(f'no {kind} of the package "{requirement}" was found')
    if _BROKEN.search(text):
        return SourceError(f'the {kind} of the package "{requirement}" is broken')
    reason = last.removeprefix("ERROR:").strip()[:300] or "it gave no reason"
    return SourceError(f'pip could not fetch the package "{requirement}": {reason}')
