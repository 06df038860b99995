"""Where a child of ours finds its libraries and devices on this system. Knows no model."""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import corral
from corral.config import child_environment

_LIBRARIES = (
    *("/usr/lib*", "/usr/bin", "/usr/sbin", "/usr/local", "/lib*", "/bin", "/sbin", "/nix/store", "/gnu/store"),
    *("/usr/share/locale", "/usr/share/zoneinfo", "/usr/share/vulkan", "/usr/share/glvnd", "/usr/share/drirc.d"),
    *("/run/opengl-driver", "/opt/rocm*", "/opt/cuda*", "/opt/nvidia*", "/opt/intel*"),
)
"""Not all of `/usr/share`: Ollama's service has its home, with its key, in there."""
_SETTINGS = (
    *("/etc/ld.so.*", "/etc/localtime", "/etc/locale*", "/etc/alternatives", "/etc/ssl/openssl.cnf"),
    *("/etc/OpenCL", "/etc/vulkan", "/etc/glvnd", "/etc/nvidia", "/etc/amd", "/etc/drirc"),
)
_KERNEL = (
    *("/proc", "/sys/devices", "/sys/bus", "/sys/class", "/sys/dev", "/sys/module", "/sys/fs/cgroup"),
    "/sys/kernel/mm",
)
_PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPUS = (
    *("/dev/nvidia*", "/dev/dri", "/dev/kfd", "/dev/dxg", "/dev/accel", "/dev/mali*", "/dev/nvhost*", "/dev/nvmap"),
    "/dev/udmabuf",
)
_GPU_CACHES = (".nv", ".cache/mesa_shader_cache*", ".cache/nvidia", ".cache/radv_builtin_shaders*", ".AMD")
_MADE_CACHES = (".cache/mesa_shader_cache", ".cache/mesa_shader_cache_db", ".nv")
"""Those that are made where they are missing: a process in the cage could not, and would compile at each load again."""
_CACHE_VARIABLES = ("MESA_SHADER_CACHE_DIR", "CUDA_CACHE_PATH")


def libraries() -> Iterator[Path]:
    """What is read: the system's libraries, Python and its packages, what the kernel says of the machine."""
    for pattern in (*_SETTINGS, *_KERNEL):
        yield from _matching(pattern)
    yield Path(corral.__file__).parent
    linked = child_environment().get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders = [path for pattern in _LIBRARIES for path in _matching(pattern)]
    folders += map(Path, (sys.prefix, sys.base_prefix, *sys.path, *filter(None, linked)))
    yield from (folder for folder in folders if not is_too_wide(folder))


def of_program(program: Path) -> Iterator[Path]:
    """What another program reads of its own: it, its folder, the libraries beside that, programs that it may start."""
    yield from (folder for folder in map(Path, os.get_exec_path()) if not is_too_wide(folder))
    for found in {program, program.resolve()}:
        yield found
        for folder in (found.parent, found.parent.parent / "lib", found.parent.parent / "lib64"):
            if not is_too_wide(folder):
                yield folder
        yield from found.parent.glob("*.so*")


def devices() -> Iterator[Path]:
    """Devices that may be read, written and spoken to."""
    for pattern in (*_PLAIN_DEVICES, *_GPUS):
        yield from _matching(pattern)


def for_gpus() -> Iterator[Path]:
    """What drivers of GPUs write: shared memory, and programs for the GPU that they have compiled. None without one."""
    named = [child_environment().get(name, "") for name in _CACHE_VARIABLES]
    yield from (folder for folder in map(Path, filter(None, named)) if not is_too_wide(folder))
    if any(path.exists() for pattern in _GPUS for path in _matching(pattern)):
        yield Path("/dev/shm")
        for name in _MADE_CACHES:
            with suppress(OSError):
                (_home() / name).mkdir(parents=True, exist_ok=True)
        for pattern in _GPU_CACHES:
            yield from _home().glob(pattern)


def is_too_wide(folder: Path) -> bool:
    """Whether a folder holds all that a user has: nothing may be granted with it."""
    place, home = folder.resolve(), _home()
    return not folder.is_absolute() or place == home or place in home.parents


@functools.cache
def _home() -> Path:
    """The user's home folder; the root of all where a user number has none."""
    try:
        return Path.home().resolve()
    except RuntimeError:
        return Path("/")


def _matching(pattern: str) -> Iterator[Path]:
    """Files of a pattern with a `*` in its last part; a path without one is given whether it is there or not."""
    folder, _, name = pattern.rpartition("/")
    return Path(folder or "/").glob(name) if "*" in name else iter([Path(pattern)])
