"""What `corral tune` has found, on disk: a small file for each model, by its weights' digest. Measures nothing.

What was measured holds for one processor and one engine. A server reads the files before loads; where either has
changed, they are not used, and the log says to tune again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from corral.engine.base import TunedSettings
from corral.errors import CorralError, StoreError, reason_of
from corral.names import parse_digest
from corral.system import private_files

log = logging.getLogger(__name__)

FOLDER = "tuned"
SECONDS = 1.0
"""How long a file that was read is not looked at again."""

_MOST = 1 << 18
BOUNDS = {"num_thread": (0, 4096), "num_batch": (0, 8192), "ngram_draft": (0, 64)}
TYPES = ("", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
ATTENTION = ("", "on", "off", "auto")


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one setting against the best until then. Ratios above 1: faster; medians of pairs with the lowest
    and highest."""

    setting: str
    value: str
    read: float = 0.0
    written: float = 0.0
    read_range: tuple[float, float] = (0.0, 0.0)
    written_range: tuple[float, float] = (0.0, 0.0)
    taken: bool = False
    remark: str = ""
    """Why it was not measured, or what the ratios do not say."""


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured for one model."""

    name: str
    """The model's name when it was tuned."""
    digest: str
    machine: str
    """The processor and its cores."""
    engine: str
    """The build of the engine, as a word."""
    settings: TunedSettings
    tried: tuple[Tried, ...] = ()

    def misfit(self, machine: str, engine: str) -> str:
        """Why it is not used here; empty where it is."""
        for what, then, now in (("the engine", self.engine, engine), ("the processor", self.machine, machine)):
            if then != now:
                return f"{what} was {then} then, and is {now} now; `corral tune {self.name}` measures again"
        return ""


def _path(state: Path, digest: str) -> Path:
    return state / FOLDER / f"{parse_digest(digest).filename}.json"


def write(state: Path, tuned: Tuned) -> None:
    """Keeps it, readable for the user only, in one step."""
    try:
        private_files.write(_path(state, tuned.digest), msgspec.json.encode(tuned))
    except OSError as error:
        raise StoreError(f"what was measured cannot be kept: {reason_of(error)}") from error


def read(state: Path, digest: str) -> Tuned | None:
    """What was measured for a model; None: nothing. `StoreError` for a file that cannot be used."""
    return _read(_path(state, digest))


def _read(file: Path) -> Tuned | None:
    try:
        with open(file, "rb") as opened:
            found = msgspec.json.decode(opened.read(_MOST), type=Tuned)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f'"{file}" cannot be read: {reason_of(error)}') from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f'"{file}" does not say what was measured: {error}') from error
    settings = found.settings
    within = all(low <= (getattr(settings, name) or 0) <= high for name, (low, high) in BOUNDS.items())
    if not within or settings.cache_type not in TYPES or settings.flash_attention not in ATTENTION:
        raise StoreError(f'"{file}" has settings that no model is loaded with')
    return found


def everything(state: Path) -> Sequence[Tuned]:
    """What was measured for all models, by their names; files that cannot be used are left out."""
    found = []
    for file in (state / FOLDER).glob("sha256-*.json"):
        try:
            found.append(_read(file))
        except StoreError as error:
            log.warning("%s", error)
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def forget(state: Path, digest: str) -> bool:
    """Removes what was measured for a model; false: there was nothing."""
    try:
        _path(state, digest).unlink()
    except FileNotFoundError:
        return False
    return True


class Tunings:
    """What a running server uses of it. Files may be changed meanwhile; each is looked at once a second at most."""

    def __init__(self, state: Path, machine: str, engine: Callable[[], str], *, on: bool = True) -> None:
        """`engine`: the build that models are loaded with now; may block. `on`: whether anything is used at all."""
        self._state, self._machine, self._engine, self._on = state, machine, engine, on
        self._found: dict[Path, tuple[float, TunedSettings | None]] = {}
        self._remarks: set[str] = set()

    async def of(self, weights: Path) -> TunedSettings | None:
        """The settings that hold here for the model with these weights; None: nothing was measured, or elsewhere."""
        if not self._on:
            return None
        now = time.monotonic()
        found = self._found.get(weights)
        if found is None or now - found[0] >= SECONDS:
            found = self._found[weights] = (now, await asyncio.to_thread(self._look, weights))
        return found[1]

    def _look(self, weights: Path) -> TunedSettings | None:
        remark = ""
        try:
            tuned = read(self._state, weights.name)
            if tuned is None:
                return None
            remark = tuned.misfit(self._machine, self._engine())
            if not remark:
                return tuned.settings
            remark = f'what was measured for "{tuned.name}" is not used: {remark}'
        except CorralError as error:  # also for weights that are no blob of the store
            remark = str(error) if isinstance(error, StoreError) else ""
        if remark and remark not in self._remarks:
            self._remarks.add(remark)
            log.warning("%s", remark)
        return None
