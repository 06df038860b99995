"""Which engines there are: the wheel's, those that were compiled here, and llama-servers found on the path."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from corral.config import Config, child_environment
from corral.engine import choice, wheels
from corral.engine.choice import WHEEL, Choice
from corral.engine.program import printed
from corral.errors import BadRequest, NotFound, StoreError
from corral.machine.gpus import command, listed

PROGRAM = "llama-server"
RECORD = "engine.json"
SECONDS = 30.0
"""How long a program may take to say what it is: drivers of GPUs are slow to start."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_MOST = 1 << 16
_BACKENDS = {"CUDA": "cuda", "ROCm": "rocm", "HIP": "rocm", "Vulkan": "vulkan", "MTL": "metal", "Metal": "metal"}
_DEVICE = re.compile(r"\s+([A-Za-z]+)\d*: (.+)")


class Record(msgspec.Struct, frozen=True):
    """What is known of an engine that was compiled here or installed from a package; in a file beside it.

    Ratios as in `trial.Trial`; 0: not measured.
    """

    version: str
    level: str
    wheel: str
    read: float = 0.0
    written: float = 0.0
    backend: str = "cpu"


class Entry(msgspec.Struct, frozen=True):
    """One engine. `backend`: `cpu`, `cuda`, `rocm`, `vulkan`, `metal`; `problem`: why it cannot be used."""

    name: str
    kind: Literal["wheel", "built", "installed", "found"]
    version: str = ""
    backend: str = ""
    program: str = ""
    record: Record | None = None
    problem: str = ""

    @property
    def choice(self) -> Choice:
        """What is written when it is chosen now."""
        is_compared = self.kind == "built" or (self.kind == "installed" and wheels.is_wheel(self.program))
        return Choice(self.name, self.program, choice.wheel_version() if is_compared else "")


def entries(config: Config) -> list[Entry]:
    """All engines, the wheel's first. Programs that were found are started to say what they are."""
    found = [Entry(WHEEL, "wheel", choice.wheel_version()), *built(config.engines)]
    return [*found, *_found(config, taken={entry.name for entry in found})]


def built(folder: Path) -> Iterator[Entry]:
    """The engines that were compiled here, by name. Starts none."""
    for record in sorted(folder.glob(f"[!.]*/{RECORD}")):
        name, folder = record.parent.name, record.parent
        program = folder if wheels.is_wheel(str(folder)) else folder / PROGRAM
        try:
            with open(record, "rb") as opened:
                known = msgspec.json.decode(opened.read(_MOST), type=Record)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            yield Entry(name, "built", problem=f'"{record}" cannot be read: {error}')
            continue
        problem = "" if choice.is_there(str(program)) else "the program is gone"
        kind: Literal["built", "installed"] = "built" if known.backend == "cpu" else "installed"
        yield Entry(name, kind, known.version, known.backend, str(program), known, problem)


def find(config: Config, name: str) -> Entry:
    """The engine of a name; a path names a program. `NotFound`."""
    if os.sep in name:
        path = Path(name).expanduser().absolute()
        if not choice.is_there(str(path)):
            raise NotFound(f'"{path}" is no program, and no folder with {wheels.PACKAGE} in it')
        taken = {WHEEL, *(entry.name for entry in built(config.engines))}
        return examined(str(path), str(path) if path.name in taken else path.name)
    for entry in entries(config):
        if entry.name == name:
            return entry
    raise NotFound(f'no engine "{name}"; `corral engine list` shows those there are')


def names(config: Config) -> list[str]:
    """Names that can be chosen, without starting a program."""
    kept = [WHEEL, *(entry.name for entry in built(config.engines))]
    return [*kept, *({_choice(config).name} - set(kept))]


def check_name(name: str) -> None:
    """`BadRequest` for a name that no engine may be given."""
    if not _NAME.fullmatch(name) or name in (WHEEL, *_BACKENDS.values(), "found"):
        raise BadRequest(
            f'an engine cannot be named "{name}": letters, digits, "-", "_" and ".", and no name of another'
        )


def remove(config: Config, name: str) -> None:
    """Removes a compiled engine; the wheel is chosen where this one was. `NotFound`, `BadRequest`."""
    entry = next((one for one in built(config.engines) if one.name == name), None)
    if entry is None:
        if name == WHEEL:
            raise BadRequest("the engine of the wheel is part of Corral; `pip uninstall xllamacpp` removes it")
        raise NotFound(f'no engine "{name}" was compiled or installed here')
    if _choice(config).name == name:
        choice.write(config.engines, Choice())
    shutil.rmtree(config.engines / name)


def _choice(config: Config) -> Choice:
    """What was chosen; the wheel where the file cannot be read, which `choice.current` reports."""
    try:
        return choice.read(config.engines)
    except StoreError:
        return Choice()


def _found(config: Config, taken: set[str]) -> Iterator[Entry]:
    """Programs named llama-server, by the path's order; one that is chosen keeps its name."""
    chosen = _choice(config)
    for program in _programs(config, chosen.program):
        entry = examined(program, "")
        base = entry.backend or "found"
        kept = chosen.name if chosen.program == program else ""
        name = kept or next(name for name in (base, *(f"{base}-{n}" for n in range(2, 99))) if name not in taken)
        taken.add(name)
        yield msgspec.structs.replace(entry, name=name)


def _programs(config: Config, chosen: str) -> Sequence[str]:
    """Each once, whatever links lead to it."""
    folders = child_environment().get("PATH", "").split(os.pathsep)
    paths = [config.engine, chosen, *(str(Path(folder, PROGRAM)) for folder in folders if folder)]
    own = config.engines.resolve()
    found: dict[str, str] = {}
    for path in paths:
        real = Path(path).resolve() if path else own
        if not real.is_relative_to(own) and choice.is_there(str(real)):
            found.setdefault(str(real), path)
    return list(found.values())


def examined(program: str, name: str) -> Entry:
    """What an engine says of itself, in a child process."""
    if wheels.is_wheel(program):
        lines, problem = printed(command(program), SECONDS)
        backend = backend_of(f"  {gpu.name}: {gpu.description}" for gpu in listed(lines))
        return Entry(name, "found", wheels.version_in(program), backend, program, problem=problem)
    lines, problem = printed([program, "--version"], SECONDS)
    version = next((version_of(line) for line in lines if line.startswith("version:")), "")
    if problem or not version:
        problem = problem or "it prints no version: no llama-server?"
        return Entry(name, "found", backend="cpu", program=program, problem=problem)
    devices, unknown = printed([program, "--list-devices"], SECONDS)
    return Entry(name, "found", version, backend_of(() if unknown else devices), program)


def version_of(line: str) -> str:
    """`b1234` of `version: 1234 (abcdef)` or `version: 0.6.0 (build 1234, …)`; else what stands there."""
    said = line.partition(":")[2].strip()
    found = re.search(r"\bbuild (\d+)|^(\d+) ", said)
    return f"b{found[1] or found[2]}" if found else said


def backend_of(lines: Iterable[str]) -> str:
    """The back end of the first device that llama-server lists; `cpu` where none is known."""
    for line in lines:
        match = _DEVICE.match(line)
        if match and match[1] in _BACKENDS:
            return _BACKENDS[match[1]]
    return "cpu"
