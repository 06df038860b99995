"""What runs a model: Corral's own code, and the packages that it needs for named platforms and Python versions.

The packages are those that pip fetches, as it is configured on this machine; their hashes are taken of the files.
"""

import hashlib
import platform
import re
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec import Struct

from corral.bundle.packing import metadata, packed_code, packed_name, packed_wheels
from corral.errors import BadRequest, NotFound, SourceError
from corral.messages import Progress
from corral.sources.pypi import pip
from corral.system.current import IS_LINUX, PLATFORM

CODE = "runtime/corral.tar.xz"
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
_WHEEL = re.compile(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-([^-]+)\.whl")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)\Z")
_OLD_NAMES = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_PYTHON_MARKER = re.compile(r"python(?:_full)?_version\s*(<=|>=|==|!=|<|>)\s*[\"']([0-9.]+)[\"']")
_PYTHON = re.compile(r"3\.\d{1,2}\Z")


class Target(Struct, frozen=True):
    """A Python version (`3.12`) on a platform, by pip's name for it (`manylinux_2_28_x86_64`); empty: this one."""

    python: str
    platform: str = ""

    @property
    def is_here(self) -> bool:
        return not self.platform and self.python == _here()

    @property
    def machine(self) -> str:
        """The processor, as Python's `platform.machine` has it there."""
        if not self.platform:
            return platform.machine().lower()
        for end in ("x86_64", "aarch64", "arm64", "amd64", "ppc64le", "s390x", "armv7l", "riscv64", "i686"):
            if self.platform.endswith(end):
                return end
        raise BadRequest(f'unknown platform "{self.platform}": it must look like "manylinux_2_28_x86_64"')


class Runtime(Struct, frozen=True):
    """The members of a bundle's archive that run it, as files; and what the description says of them."""

    files: Mapping[str, Path]
    description: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.files.values())


def targets(pythons: Sequence[str], platforms: Sequence[str]) -> list[Target]:
    """Each Python version on each platform; this one where none is named. `BadRequest` for what pip cannot do here."""
    for version in pythons:
        if not _PYTHON.match(version):
            raise BadRequest(f'invalid Python version "{version}": it must look like "3.12"')
        if tuple(map(int, version.split("."))) < (3, 11):
            raise BadRequest(f"Python {version} is too old: Corral needs 3.11 or newer")
    for name in platforms:
        if _system(name) != PLATFORM:
            raise BadRequest(
                f'packages for the platform "{name}" cannot be chosen here, since some depend on the system: '
                "make that bundle on such a system"
            )
    found = [Target(python, name) for python in pythons or [_here()] for name in platforms or [""]]
    for target in found:
        target.machine  # noqa: B018 - says what is wrong with the platform
    return list(dict.fromkeys(found))


async def gather(
    wanted: Sequence[Target], folder: Path, *, is_light: bool, made: list[Runtime]
) -> AsyncGenerator[Progress, None]:
    """Puts the runtime for the targets into `folder`, and adds it to `made`.

    `is_light`: the packages are fetched for their hashes and not carried. `NotFound` for a target that a package is not
    there for, `Unreachable`, `SourceError`.
    """
    files: dict[str, Path] = {CODE: folder / "corral.tar.xz"}
    yield Progress("packing corral")
    files[CODE].write_bytes(packed_code())
    described: list[dict[str, Any]] = []
    for number, target in enumerate(wanted):
        place = folder / f"target-{number}"
        async with aclosing(_fetch(target, place)) as steps:
            async for step in steps:
                yield step
        wheels = _wheels(place)
        requirements = folder / f"requirements-{number}.txt"
        requirements.write_text("".join(map(_pinned, wheels)))
        files[f"runtime/{requirements.name}"] = requirements
        packed = {f"runtime/{packed_name(wheel)}": place / packed_name(wheel) for wheel in wheels if not is_light}
        async with aclosing(packed_wheels([] if is_light else wheels, place)) as steps:
            async for step in steps:
                yield step
        files.update(packed)
        described.append(
            {
                "python": target.python,
                "system": PLATFORM,
                "machine": target.machine,
                "libc": _least_libc(wheel.name for wheel in wheels),
                "requirements": f"runtime/{requirements.name}",
                "wheels": list(packed),
            }
        )
    hashes = {member: hashlib.sha256(path.read_bytes()).hexdigest() for member, path in files.items()}
    made.append(Runtime(files, {"code": CODE, "targets": described, "sha256": hashes}))


def requirements() -> list[str]:
    """What Corral's package needs, without what is only for tests."""
    return [line for line in metadata().requires or [] if "extra ==" not in line]


async def _fetch(target: Target, folder: Path) -> AsyncGenerator[Progress, None]:
    """All wheels for a target, below `folder`. pip judges conditions by the Python that runs it, so what a package
    needs under another version only is asked for in a second round."""
    wanted = requirements()
    for turn in range(3):
        place = folder / str(turn)
        place.mkdir(parents=True)
        try:
            async with aclosing(pip.download_all(wanted, place, _options(target))) as steps:
                async for step in steps:
                    yield Progress(f"fetching {step.name}", step.name, step.total, step.completed)
        except NotFound as error:
            where = f"Python {target.python}" + (f" on {target.platform}" if target.platform else "")
            raise NotFound(f"{error}\nCorral's packages are not all there for {where}") from error
        wheels = _wheels(folder)
        lacking = [] if target.python == _here() else _lacking(wheels, target.python)
        if not lacking:
            return
        wanted = [*wanted, *lacking]
        for wheel in wheels:
            wheel.unlink()
    raise SourceError(f"what Corral's packages need under Python {target.python} could not be found out")


def _wheels(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.whl"))


def _options(target: Target) -> list[str]:
    if target.is_here:
        return []
    options = ["--python-version", target.python, "--implementation", "cp"]
    for name in _platforms(target.platform):
        options += ["--platform", name]
    return options


def _platforms(name: str) -> list[str]:
    """A platform and those whose wheels run there, by pip's names: a newer C library runs what an older one does."""
    if not name:
        if not IS_LINUX:
            import sysconfig

            return [re.sub(r"[-.]", "_", sysconfig.get_platform())]
        version = re.match(r"(\d+)\.(\d+)", platform.libc_ver()[1]) or re.match(r"(\d+)\.(\d+)", "2.28")
        assert version is not None
        name = f"manylinux_{version[1]}_{version[2]}_{platform.machine().lower()}"
    match = _MANYLINUX.match(name)
    if match is None:
        return [name]
    major, minor, machine = int(match[1]), int(match[2]), match[3]
    names = [f"manylinux_{major}_{number}_{machine}" for number in range(minor, 4, -1)]
    old = [f"{old}_{machine}" for old, version in _OLD_NAMES.items() if version <= (major, minor)]
    return [*names, *old, f"linux_{machine}"]


def _system(name: str) -> str:
    """What Python calls the system of a platform that pip calls so."""
    for beginning, system in (("manylinux", "linux"), ("linux", "linux"), ("macosx", "darwin"), ("win", "win32")):
        if name.startswith(beginning):
            return system
    raise BadRequest(f'unknown platform "{name}": it must look like "manylinux_2_28_x86_64" or "macosx_11_0_arm64"')


def _here() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _pinned(wheel: Path) -> str:
    """The line of a requirements file that takes this wheel and no other."""
    match = _WHEEL.match(wheel.name)
    if match is None:
        raise SourceError(f'pip brought a file with the strange name "{wheel.name}"')
    return f"{match[1]}=={match[2]} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _least_libc(names: Iterable[str]) -> list[int]:
    """The oldest version of glibc that all these wheels run with; `[0, 0]` where none says."""
    least = (0, 0)
    for name in names:
        match = _WHEEL.match(name)
        versions = [found for tag in (match[3].split(".") if match else []) if (found := _libc_of(tag))]
        if versions:
            least = max(least, min(versions))
    return list(least)


def _libc_of(tag: str) -> tuple[int, int] | None:
    if match := _MANYLINUX.match(tag):
        return int(match[1]), int(match[2])
    return _OLD_NAMES.get(tag.partition("_")[0])


def _lacking(wheels: Iterable[Path], python: str) -> list[str]:
    """What the wheels need under that Python version, and not under this one, and is not among them."""
    import zipfile

    there = {_folded(wheel.name.split("-")[0]) for wheel in wheels}
    found: dict[str, None] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            header = archive.read(member).decode("utf-8", "replace").split("\n\n")[0]
        for line in header.splitlines():
            text, _, marker = line.removeprefix("Requires-Dist:").partition(";")
            clauses = _PYTHON_MARKER.findall(marker)
            if not line.startswith("Requires-Dist:") or not clauses or "extra" in marker:
                continue
            name = _REQUIREMENT.match(text.strip())
            if name and _folded(name[0]) not in there and all(_holds(python, *clause) for clause in clauses):
                found[text.strip()] = None
    return list(found)


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _holds(python: str, operator: str, version: str) -> bool:
    """Whether a condition on the version of Python holds, by its first two numbers."""
    left, right = (tuple(map(int, text.split(".")[:2])) for text in (python, version))
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "==": left == right,
        "!=": left != right,
    }[operator]
