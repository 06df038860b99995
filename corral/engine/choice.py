"""Which engine is chosen: the one in the wheel, another build of that wheel, or a llama-server. One small file.

`corral engine use` writes it, and a server reads it before each load, so that a choice counts from the next load on.
"""

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from corral.config import Config
from corral.engine import wheels
from corral.errors import StoreError, reason_of

WHEEL = "wheel"
"""The name of the engine that Corral is installed with."""

FILE = "chosen.json"
_MOST = 1 << 16


class Choice(msgspec.Struct, frozen=True):
    """`program`: the path of a llama-server, or of a folder with a wheel in it; empty: the wheel that Corral
    is installed with. `wheel`: the version that it was compared with; empty for a program that is used beside any."""

    name: str = WHEEL
    program: str = ""
    wheel: str = ""


class Engine(msgspec.Struct, frozen=True):
    """What a model is loaded with now. `remark`: why that is not what was chosen."""

    name: str
    program: str = ""
    remark: str = ""


def wheel_version() -> str:
    """The version of the engine that Corral is installed with; empty without it."""
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return ""


def read(folder: Path) -> Choice:
    """What was chosen; the wheel without a file. `StoreError` when the file is there and cannot be read."""
    file = folder / FILE
    try:
        with open(file, "rb") as opened:
            return msgspec.json.decode(opened.read(_MOST), type=Choice)
    except FileNotFoundError:
        return Choice()
    except OSError as error:
        raise StoreError(f'"{file}" cannot be read: {reason_of(error)}') from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f'"{file}" does not say which engine is chosen: {error}') from error


def write(folder: Path, choice: Choice) -> None:
    """Chooses an engine, in one step: a reader sees the old choice or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{FILE}.{os.getpid()}"
    try:
        fresh.write_bytes(msgspec.json.encode(choice))
        fresh.replace(folder / FILE)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()


def current(config: Config) -> Engine:
    """The engine to load with: `CORRAL_ENGINE`, or what was chosen and is still there and fits, or the wheel."""
    if config.engine:
        return Engine("CORRAL_ENGINE", config.engine)
    try:
        choice = read(config.engines)
    except StoreError as error:
        return Engine(WHEEL, remark=f"{error}; `corral engine use wheel` writes it anew")
    if not choice.program:
        return Engine(WHEEL)
    if choice.wheel and choice.wheel != (here := wheel_version()):
        return Engine(
            WHEEL,
            remark=f'the engine "{choice.name}" was compared with xllamacpp {choice.wheel}, and this is '
            f"{here or 'none'}; `{_again(choice)}` makes a new one",
        )
    if not is_there(choice.program):
        return Engine(WHEEL, remark=f'the engine "{choice.name}" is gone: "{choice.program}" is no engine')
    return Engine(choice.name, choice.program)


def is_there(program: str) -> bool:
    """Whether a path names an engine: a program, or a folder with a wheel."""
    return wheels.is_wheel(program) or (os.access(program, os.X_OK) and not Path(program).is_dir())


def _again(choice: Choice) -> str:
    """The command that makes an engine anew; those that are installed have the name of what they compute with."""
    is_installed = wheels.is_wheel(choice.program)
    return f"corral engine install {choice.name}" if is_installed else "corral engine build"
