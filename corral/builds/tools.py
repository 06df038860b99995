"""What compiling takes: a compiler of C and C++, CMake, and ninja or make. Those that are missing, or where from."""

import asyncio
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from corral.config import child_environment
from corral.errors import NotFound, SourceError, Unreachable
from corral.sources.pypi.pip import find_pip

FETCHED = ("cmake", "ninja")
"""Tools that the package index has as wheels."""

FETCH_SECONDS = 600.0

Which = Callable[[str], str | None]


class Compilers(msgspec.Struct, frozen=True):
    """Paths of the compilers of C and C++."""

    c: str
    cpp: str


class Makers(msgspec.Struct, frozen=True):
    """Paths of CMake and of what runs the compilers for it: ninja, or make."""

    cmake: str
    maker: str

    @property
    def is_ninja(self) -> bool:
        return Path(self.maker).name.startswith("ninja")


def compilers(which: Which = shutil.which, environ: Mapping[str, str] | None = None) -> Compilers:
    """Those that `CC` and `CXX` name, else the system's. `NotFound` with what to install."""
    named = child_environment() if environ is None else environ
    c = _first(which, named.get("CC", ""), "cc", "gcc", "clang")
    cpp = _first(which, named.get("CXX", ""), "c++", "g++", "clang++")
    if not c or not cpp:
        raise NotFound(f"no compiler of {'C' if not c else 'C++'} was found\n{advice(which)}")
    return Compilers(c, cpp)


def makers(which: Which = shutil.which) -> Makers | None:
    """Those on the path; None where one is missing."""
    cmake, maker = which("cmake"), _first(which, "ninja", "ninja-build", "make")
    return Makers(cmake, maker) if cmake and maker else None


def advice(which: Which = shutil.which, system: str = platform.system()) -> str:
    """How what compiling takes is installed on this system, as a line for a person."""
    if system == "Darwin":
        return "install Apple's: xcode-select --install"
    for manager, command in (
        ("apt", "apt install build-essential cmake"),
        ("dnf", "dnf install gcc-c++ make cmake"),
        ("pacman", "pacman -S base-devel cmake"),
        ("zypper", "zypper install gcc-c++ make cmake"),
        ("apk", "apk add build-base cmake linux-headers"),
    ):
        if which(manager):
            return f"install them: {command}"
    return "install gcc, g++, make and cmake as your system does it"


async def fetch_makers(folder: Path) -> Makers:
    """CMake and ninja from the package index, into a folder of their own. Blocking for at most `FETCH_SECONDS`.

    `Unreachable`, `SourceError`: the index has not given them.
    """
    pip = await find_pip()
    command = [*pip.words, "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--target", str(folder), *FETCHED]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=child_environment()
    )
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise Unreachable("the package index did not give cmake and ninja in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = None if process.returncode else await asyncio.to_thread(_fetched, folder)
    if found is None:
        last = output.decode(errors="replace").strip().splitlines()[-1:]
        raise SourceError(
            f"cmake is not installed, and could not be had from the package index: {''.join(last)}\n{advice()}"
        )
    return found


def _fetched(folder: Path) -> Makers | None:
    """The programs themselves: what stands in `bin` may be a script that wants a Python of its own."""
    found = [
        next((path for place in (f"{name}/data/bin/{name}", f"bin/{name}") for path in folder.glob(place)), None)
        for name in FETCHED
    ]
    return Makers(str(found[0]), str(found[1])) if all(found) else None


def _first(which: Which, *names: str) -> str:
    return next((found for name in names if name and (found := which(name))), "")
