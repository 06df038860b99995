"""An engine that is a folder: the wheel xllamacpp in a build for GPUs, unpacked beside the installed one.

Wherever a path names an engine, it may be that of a llama-server or of such a folder, which holds the package itself.
"""

from pathlib import Path

PACKAGE = "xllamacpp"


def is_wheel(program: str) -> bool:
    """Whether the path of an engine names such a folder, and not a program."""
    return bool(program) and Path(program, PACKAGE, "__init__.py").is_file()


def library(folder: str) -> Path | None:
    """The native library in it, which holds the engine; None without one."""
    return next(iter(sorted(Path(folder, PACKAGE).glob(f"{PACKAGE}*.so"))), None)


def version_in(folder: str) -> str:
    """The version that the wheel says it has; empty where it says none. Runs none of it."""
    for found in sorted(Path(folder).glob(f"{PACKAGE}-*.dist-info")):
        return found.name.removeprefix(f"{PACKAGE}-").removesuffix(".dist-info")
    return ""
