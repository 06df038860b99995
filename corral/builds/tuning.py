"""Which settings a model is fastest with here: each is tried against the best until then, in pairs.

Both are loaded at the same time and asked in turns (`trial`), so that what else the machine does slows both. A value is
taken only where it answers alike, and is faster for sure; what all of them come to is compared with the beginning once
more, and kept only if that wins, too: of many tries, one wins by luck.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import psutil

from corral import cage
from corral.builds.trial import READ_WORDS, STALL_SECONDS, Speeds, Trial, compared, judged, measured, spec_for, speeds
from corral.config import Config
from corral.engine import choice
from corral.engine.base import RunnerSpec, TunedSettings
from corral.engine.llama.build import build
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.engine.load_options import batches
from corral.engine.tuned import Tried, Tuned
from corral.errors import EngineError, OutOfMemory
from corral.golang.units import byte_text
from corral.machine import processor
from corral.machine.memory import memory
from corral.machine.threads import cores_here, threads_here
from corral.messages import Progress

PAIRS = 5
LONG_WORDS = 400
"""Words of a prompt that is longer than a micro-batch, where that is what is tried."""

SPARE_BYTES = 512 << 20
SHIFTED = "compared only: the engine may crash where a context of that type is shifted"
"""xllamacpp 2026.10.11549 was seen to end so with `q8_0` and heads of 32 numbers, not with heads of 64."""

BATCHES = (256, 512, 1024)
DRAFT = 12
"""Tokens drafted at once from repeated text, as by default (`serving.spec.NGRAM_DRAFT`)."""

FREE_LEAST, REPEATED_LEAST = 0.97, 1.05
"""What answers of free text and of repeated text must reach with speculation, of their speed without."""

_LINES = "\n".join(
    f"    total_{word} = count_{word} + 1" for word in ["apples", "pears", "plums", "figs", "grapes", "limes"]
)
REPEATED = f"def add():\n{_LINES}\n\n# the same again\ndef add():\n{_LINES}\n\n# the same again\ndef add():\n"
FREE = "Once upon a time there was a lighthouse keeper who"

Asking: TypeAlias = Callable[[LlamaEngine, int], Coroutine[Any, Any, Speeds]]
Candidate: TypeAlias = tuple[str, str, TunedSettings]
"""A setting's name, the value to try, and all settings with it."""


class Other(msgspec.Struct, frozen=True):
    """Another engine of this machine, to be compared."""

    name: str
    program: str


class Tuning:
    """One tuning: iterate `steps` to its end, then `tuned` is there. Closing the iterator ends what was started.

    Writes nothing. `EngineError` where the model does not load as it is; `OutOfMemory` where two do not fit.
    """

    tuned: Tuned

    def __init__(
        self, config: Config, name: str, weights: Path, *, others: Sequence[Other] = (), pairs: int = PAIRS
    ) -> None:
        self._config = config
        self._name = name
        self._weights = weights
        self._others = others
        self._pairs = pairs
        self._program = choice.current(config).program
        self._logs = config.state / "tune"
        self._number = 0
        self._cage = cage.wanted(config)

    async def steps(self) -> AsyncGenerator[Progress, None]:
        _require_room(self._weights)
        self._logs.mkdir(parents=True, exist_ok=True)
        best, tried = TunedSettings(ngram_draft=0), []
        for setting in SETTINGS:
            for name, value, wish in list(candidates(setting, best, self._spec(best), self._config)):
                yield Progress(f"measuring {name} {value}")
                one = await self._tried(name, value, best, wish)
                tried.append(one)
                if one.taken:
                    best = wish
        if best != TunedSettings(ngram_draft=0):
            yield Progress("measuring all of them together")
            one = await self._tried("together", "all of these", TunedSettings(ngram_draft=0), best)
            tried.append(one)
            best = best if one.taken else TunedSettings(ngram_draft=0)
        if self._config.speculation:
            yield Progress("measuring speculation")
            drafting = msgspec.structs.replace(best, ngram_draft=DRAFT)
            tried.append(await self._speculation(best, drafting))
            best = drafting if tried[-1].taken else best
        for other in self._others:
            yield Progress(f"measuring the engine {other.name}")
            plain = msgspec.structs.replace(best, ngram_draft=0)  # drafted tokens have no probabilities to compare
            tried.append(await self._tried("engine", other.name, plain, plain, other.program))
        self.tuned = Tuned(
            name=self._name,
            digest=self._weights.name,
            machine=processor.name(),
            engine=build(self._program),
            settings=best,
            tried=tuple(tried),
        )

    def _spec(self, settings: TunedSettings) -> RunnerSpec:
        """As `serving.spec` and a server's launch make it of the same settings."""
        plain = spec_for(self._weights)
        return msgspec.structs.replace(
            plain,
            num_thread=settings.num_thread or threads_here(),
            cache_type=settings.cache_type or self._config.kv_cache_type,
            flash_attention=settings.flash_attention or self._config.flash_attention,
            ngram_draft=settings.ngram_draft or 0,
            tuned=settings,
        )

    async def _tried(
        self, name: str, value: str, before: TunedSettings, after: TunedSettings, program: str | None = None
    ) -> Tried:
        words = LONG_WORDS if name in ("micro-batch", "together") else READ_WORDS
        row = Tried(setting=name, value=value)
        try:
            async with AsyncExitStack() as stack:
                one, other = await self._both(stack, before, after, program)
                if found := await compared(one, other):
                    return msgspec.structs.replace(row, remark=f"answers differently: {found}")
                trial = judged(await self._pairs_of(one, other, lambda engine, turn: speeds(engine, turn, words)))
        except OutOfMemory as error:
            return msgspec.structs.replace(row, remark=str(error))
        except EngineError as error:
            if before == after and program is None:
                raise
            return msgspec.structs.replace(row, remark=f"does not work: {error}")
        if name == "KV type":
            return _filled(row, trial, taken=False, remark=SHIFTED)
        remark = f"`corral engine use {value}` chooses it" if program is not None and trial.wins else ""
        return _filled(row, trial, taken=trial.wins and program is None, remark=remark)

    async def _speculation(self, before: TunedSettings, after: TunedSettings) -> Tried:
        """`read` of what comes of it stands for free text, `written` for text that repeats itself."""
        row = Tried(setting="speculation", value=f"up to {DRAFT} tokens")
        try:
            async with AsyncExitStack() as stack:
                one, other = await self._both(stack, before, after)
                trial = judged(await self._pairs_of(one, other, _free_and_repeated))
        except EngineError as error:
            return msgspec.structs.replace(row, remark=f"does not work: {error}")
        pays = trial.read >= FREE_LEAST and trial.written >= REPEATED_LEAST
        return _filled(row, trial, taken=pays, remark="free text and text that repeats itself")

    async def _both(
        self, stack: AsyncExitStack, before: TunedSettings, after: TunedSettings, program: str | None = None
    ) -> tuple[LlamaEngine, LlamaEngine]:
        one = await self._launch(stack, before, "before", self._program)
        return one, await self._launch(stack, after, "after", self._program if program is None else program)

    async def _launch(self, stack: AsyncExitStack, settings: TunedSettings, name: str, program: str) -> LlamaEngine:
        engine = await launch(
            self._spec(settings),
            log=self._logs / f"{name}.log",
            stall_timeout=STALL_SECONDS,
            program=program,
            cache_ram_mib=0,
            cage=self._cage,
        )
        stack.push_async_callback(engine.close)
        return engine

    async def _pairs_of(self, one: LlamaEngine, other: LlamaEngine, ask: Asking) -> list[tuple[Speeds, Speeds]]:
        """The first pair warms up; every second one asks the other engine first."""
        found: list[tuple[Speeds, Speeds]] = []
        for turn in range(self._pairs + 1):
            self._number += 1
            if turn % 2:
                late = await ask(other, self._number)
                found.append((await ask(one, self._number), late))
            else:
                found.append((await ask(one, self._number), await ask(other, self._number)))
            if _is_hopeless(found[1:]):
                break
        return found[1:]


async def _free_and_repeated(engine: LlamaEngine, turn: int) -> Speeds:
    free = await measured(engine, f"{turn}. {FREE}", tokens=48, temperature=0.8)
    repeated = await measured(engine, f"# {turn}\n{REPEATED}", tokens=64)
    return Speeds(free.written, repeated.written)


def _is_hopeless(pairs: Sequence[tuple[Speeds, Speeds]]) -> bool:
    """Whether three pairs in a row say that it is slower by far, so that more would only take time."""
    slower = [after.read * after.written < 0.7 * before.read * before.written for before, after in pairs]
    return len(slower) >= 3 and all(slower)


def _filled(row: Tried, trial: Trial, *, taken: bool, remark: str) -> Tried:
    return msgspec.structs.replace(
        row,
        read=trial.read,
        written=trial.written,
        read_range=trial.read_range,
        written_range=trial.written_range,
        taken=taken,
        remark=remark,
    )


def _require_room(weights: Path) -> None:
    needed, free = 2 * weights.stat().st_size + SPARE_BYTES, memory().available
    if needed > free:
        raise OutOfMemory(
            f"the model is loaded twice to compare, for which {byte_text(needed)} of memory are needed and "
            f"{byte_text(free)} are free"
        )


SETTINGS = ("threads", "micro-batch", "flash attention", "KV type", "weights")
"""What is tried, in this order; speculation and other engines come after them."""


def candidates(setting: str, best: TunedSettings, spec: RunnerSpec, config: Config) -> Iterator[Candidate]:
    """The values of one setting that are tried against the best until then, whose specification is `spec`.

    What the configuration says already is not tried: it counts more than what is measured.
    """
    defaults = Config()
    change = msgspec.structs.replace
    if setting == "threads":
        for threads in sorted(_threads(cores_here()) - {spec.num_thread or _own_threads()}):
            yield setting, str(threads), change(best, num_thread=threads)
    elif setting == "micro-batch":
        for size in BATCHES:
            if size != batches(spec)[1]:
                yield setting, str(size), change(best, num_batch=size)
    elif setting == "flash attention" and config.flash_attention == defaults.flash_attention:
        for switch in ("on", "off"):
            yield setting, switch, change(best, flash_attention=switch)
    elif setting == "KV type" and config.kv_cache_type == defaults.kv_cache_type:
        if best.flash_attention != "off":  # the engine needs it for values in fewer bits
            yield setting, "q8_0", change(best, cache_type="q8_0")
    elif setting == "weights":
        yield setting, "plain", change(best, repack=False)


def _threads(cores: int) -> set[int]:
    return {max(1, cores // 2), max(1, cores - 1), cores}


def _own_threads() -> int:
    """How many the engine takes by itself: one for each physical core."""
    return psutil.cpu_count(logical=False) or cores_here()


def described(settings: TunedSettings) -> str:
    """The settings that differ from those without any tuning, in a few words."""
    words = []
    if settings.num_thread:
        words.append(f"{settings.num_thread} threads")
    if settings.num_batch:
        words.append(f"micro-batch {settings.num_batch}")
    if settings.flash_attention:
        words.append(f"flash attention {settings.flash_attention}")
    if settings.cache_type:
        words.append(f"KV {settings.cache_type}")
    if not settings.repack:
        words.append("plain weights")
    if settings.ngram_draft is not None:
        words.append(f"drafts of {settings.ngram_draft}" if settings.ngram_draft else "no speculation")
    return ", ".join(words) or "as without tuning"


async def run(tuning: Tuning, show: Callable[[Progress], None]) -> Tuned:
    """Carries a tuning out."""
    async with aclosing(tuning.steps()) as steps:
        async for step in steps:
            show(step)
    return tuning.tuned
