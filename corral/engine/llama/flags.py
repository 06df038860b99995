"""Which flags a llama-server knows: asked of it once, and kept by the digest of its file and the libraries beside it.

What it lacks is left out of its command line, or said otherwise, as `load_options.SPARED` has it.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from corral.engine.load_options import SPARED
from corral.engine.program import printed
from corral.system import private_files

SECONDS = 10.0
"""How long a program may take to print its help; it takes tenths of one."""

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_ESSENTIAL = frozenset({"--model", "--ctx-size"})
"""What the help of any llama-server names; a text without it is of something else, and nothing follows from it."""

_CHUNK, _MOST_FILES = 1 << 20, 64


def lacking(program: str, cache: Path | None = None) -> frozenset[str]:
    """The flags of `SPARED` that a program does not know; empty where it does not say. Blocks.

    `cache`: the folder that the answers are kept in, None: nowhere.
    """
    known = _known(program, cache)
    return frozenset(SPARED.keys() - known) if known >= _ESSENTIAL else frozenset()


def _known(program: str, cache: Path | None) -> frozenset[str]:
    if cache is None:
        return _asked(program)
    try:
        file = cache / f"{_digest(Path(program))}.json"
    except OSError:
        return frozenset()
    with suppress(OSError, msgspec.DecodeError):
        return frozenset(msgspec.json.decode(file.read_bytes(), type=list[str]))
    found = _asked(program)
    if found:
        with suppress(OSError):  # then it is asked again
            private_files.write(file, msgspec.json.encode(sorted(found)))
    return found


def _asked(program: str) -> frozenset[str]:
    lines, problem = printed([program, "--help"], SECONDS)
    return frozenset() if problem else frozenset(_FLAG.findall("\n".join(lines)))


def _digest(program: Path) -> str:
    """Of the program's bytes, and of names, sizes and times of the libraries beside it, which may hold all the code."""
    state = hashlib.sha256()
    with open(program, "rb") as opened:
        while chunk := opened.read(_CHUNK):
            state.update(chunk)
    for line in sorted(_libraries(program))[:_MOST_FILES]:
        state.update(line.encode(errors="surrogateescape"))
    return state.hexdigest()


def _libraries(program: Path) -> Iterator[str]:
    for file in program.resolve().parent.glob("*.so*"):
        with suppress(OSError):
            status = file.stat()
            yield f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n"
