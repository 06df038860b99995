"""Making an engine: sources, compilation, trial, and what becomes of it. Leaves nothing half-made, however it ends."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import msgspec

from corral import cage
from corral.builds import catalogue, sources, tools
from corral.builds.catalogue import PROGRAM, RECORD, Record
from corral.builds.compiling import COMPILING
from corral.builds.flags import Level, levels
from corral.builds.tools import Makers
from corral.builds.trial import Trial, Trying, is_illegal
from corral.config import Config
from corral.engine import choice
from corral.engine.choice import Choice
from corral.errors import BadRequest, Busy, DiskFull, EngineError, StoreError
from corral.golang.units import byte_text
from corral.job import Job
from corral.machine.memory import memory
from corral.machine.threads import cores_here
from corral.messages import Progress
from corral.system import locks
from corral.system.current import IS_WINDOWS

__all__ = ["COMPILING", "Building", "Outcome"]

NAME = "native"
"""What a compiled engine is called where no other name is given."""

NEEDED_BYTES = 1 << 30
"""Room on the disk that sources and objects take until the engine is ready, with some to spare."""

JOB_BYTES = 1 << 30
"""Memory that one compiler takes at most."""

_SCRATCH = ".building-"
_LOCK = ".lock"


class Outcome(msgspec.Struct, frozen=True):
    """What came of a build. `passed_over`: levels that the processor did not run, best first."""

    name: str
    version: str
    level: str
    trial: Trial
    passed_over: tuple[str, ...] = ()
    kept: bool = False
    chosen: bool = False


class Building:
    """One build: iterate `steps` to its end, then `outcome` is there. Closing the iterator ends it.

    `model`: the GGUF file to try the engine with; `keep`: the engine is kept, not chosen, where it is not faster.
    Errors: those of fetching, compiling and trying; `Busy` while another build runs, `DiskFull`, `BadRequest`.
    """

    outcome: Outcome

    def __init__(
        self,
        config: Config,
        model: Path,
        features: Iterable[str],
        *,
        name: str = NAME,
        keep: bool = False,
        jobs: int = 0,
        wanted: str = "",
        beside: str = "",
    ) -> None:
        """`features`: those that the system lists of the processor. `wanted`: the sources' requirement for pip.

        `beside`: another llama-server to compare with instead of the wheel's engine.
        """
        catalogue.check_name(name)
        if IS_WINDOWS:
            raise BadRequest("engines are compiled on Linux and macOS only")
        self._config = config
        self._folder = config.engines
        self._model = model
        self._levels = levels(features)
        self._name = name
        self._keep = keep
        self._beside = beside
        self._jobs = jobs or jobs_here()
        self._wanted = wanted or sources.requirement(choice.wheel_version())
        self.logs = config.state / "engine-build"
        self._compilers = tools.compilers()

    @property
    def log(self) -> Path:
        """What configuring and compiling print."""
        return self.logs / "compile.log"

    async def steps(self) -> AsyncGenerator[Progress, None]:
        try:
            with scratch_folder(self._folder) as scratch:
                self.logs.mkdir(parents=True, exist_ok=True)
                self.log.write_bytes(b"")
                async with aclosing(self._made(scratch)) as steps:
                    async for step in steps:
                        yield step
        except OSError as error:
            raise StoreError(f"the engine cannot be built: {error}") from error

    async def _made(self, scratch: Path) -> AsyncGenerator[Progress, None]:
        yield Progress("looking for compilers")
        makers = tools.makers()
        if makers is None:
            yield Progress("fetching cmake and ninja")
            makers = await tools.fetch_makers(scratch / "tools")
        async with aclosing(sources.fetch(self._wanted, scratch / "fetched")) as fetched:
            async for step in fetched:
                yield step
        archive = sources.archive(scratch / "fetched")
        yield Progress("unpacking")
        source = await asyncio.to_thread(sources.unpack, archive, scratch / "source")
        version = sources.version(archive)
        passed_over: list[str] = []
        for level in self._levels:
            job = self._job(source, scratch / "made", makers, level, version)
            yield Progress(f"compiling for {_SAID[level.name]}")
            async with aclosing(job.steps()) as compiled:
                async for step in compiled:
                    yield step
            trying = Trying(
                str(job.result), self._model, self.logs, beside=self._beside, cage=cage.wanted(self._config)
            )
            try:
                async with aclosing(trying.steps()) as tried:
                    async for step in tried:
                        yield step
            except EngineError as error:
                if not is_illegal(error) or level is self._levels[-1]:
                    raise EngineError(f"the compiled engine does not work: {error}") from error
                passed_over.append(level.name)
                continue
            self._settle(job.result, scratch, level, version, trying.trial, tuple(passed_over))
            return

    def _job(self, source: Path, folder: Path, makers: Makers, level: Level, version: str) -> Job[Path]:
        number = version.removeprefix("b")
        return Job(
            "corral.builds.compiling:compile",
            Path,
            "compiling the engine",
            cage=None,  # runs compilers
            source=source,
            folder=folder,
            log=self.log,
            compilers=self._compilers,
            makers=makers,
            options=level.options,
            number=number if number.isdecimal() else "",
            jobs=self._jobs,
        )

    def _settle(
        self, program: Path, scratch: Path, level: Level, version: str, trial: Trial, passed_over: tuple[str, ...]
    ) -> None:
        """Keeps the engine, or does not, and chooses it where it wins."""
        is_kept = trial.wins or (self._keep and not trial.difference)
        if is_kept:
            wheel = choice.wheel_version()
            fresh = scratch / "engine"
            fresh.mkdir()
            shutil.copy(program, fresh / PROGRAM)
            record = Record(version, level.name, wheel, trial.read, trial.written)
            (fresh / RECORD).write_bytes(msgspec.json.encode(record))
            final = self._folder / self._name
            with suppress(FileNotFoundError):
                final.rename(scratch / "before")
            fresh.rename(final)
            if trial.wins:
                choice.write(self._folder, Choice(self._name, str(final / PROGRAM), wheel))
        self.outcome = Outcome(
            self._name, version, level.name, trial, passed_over, is_kept, chosen=is_kept and trial.wins
        )


_SAID = {
    "native": "this processor, as the compiler knows it",
    "listed": "the features that the system lists",
    "plain": "any such processor",
}


def jobs_here() -> int:
    """How many compilers run at once: one a core, and no more than memory suffices for."""
    return max(1, min(cores_here(), memory().available // JOB_BYTES))


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder of this build's own, removed with the block, as is what killed builds have left. `Busy`, `DiskFull`."""
    if IS_WINDOWS:
        raise BadRequest("engines are compiled on Linux and macOS only")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "wb") as lock:
        if locks.take(lock.fileno()) == "held":
            raise Busy("another build of an engine is running")
        for left in folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
            raise DiskFull(f'building takes {byte_text(NEEDED_BYTES)} in "{folder}", where {byte_text(free)} are free')
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
