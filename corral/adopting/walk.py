"""The files of a folder that may be models, within bounds: so deep, so many names, no link that leads out of it.

Opens nothing. What is not looked at is said.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corral.adopting.found import File, Left
from corral.errors import reason_of
from corral.names import Digest

MAX_DEPTH = 8
"""Folders in folders that are looked into."""
MAX_NAMES = 50_000
"""Files and folders that are looked at below one folder."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_UNFINISHED = (".incomplete", ".part", ".downloadinprogress", ".gguf.download", ".crdownload")


@dataclass(slots=True)
class Walked:
    """What a walk came by, folder after folder."""

    files: list[File] = field(default_factory=list)
    """Those whose names end in `.gguf`."""
    checkpoints: list[Path] = field(default_factory=list)
    """Folders with safetensors."""
    left: list[Left] = field(default_factory=list)


def walk(root: Path, *, inside: Path | None = None, most: int = MAX_NAMES) -> Walked:
    """Everything below `root`. Links to files are followed that end below `inside`, which is `root` by default."""
    found = Walked()
    home = Path(os.path.realpath(inside or root))
    folders = [(root, 0)]
    seen = 0
    while folders:
        folder, depth = folders.pop()
        below: list[tuple[Path, int]] = []
        for entry in _entries(folder, found):
            seen += 1
            if seen > most:
                reason = f"has more than {most} files and folders: name the ones below it that have models"
                found.left.append(Left(root, reason))
                return found
            path = Path(entry.path)
            if _is_folder(entry):
                if depth < MAX_DEPTH:
                    below.append((path, depth + 1))
                else:
                    found.left.append(Left(path, f"lies more than {MAX_DEPTH} folders deep: name it, to look there"))
            else:
                _add(path, home, found)
        folders += reversed(below)
    return found


def one_file(path: Path) -> Walked:
    """A file that was named by itself, wherever it links to."""
    found = Walked()
    _add(path, Path(os.path.realpath(path)).parent, found)
    if not found.files and not found.left:
        found.left.append(Left(path, "is no GGUF file by its name"))
    return found


def _entries(folder: Path, found: Walked) -> Iterator["os.DirEntry[str]"]:
    """By their names, so that the same is found every time; a folder that cannot be read is noted."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.left.append(Left(folder, f"cannot be read: {reason_of(error)}"))
        return
    yield from listed


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _add(path: Path, home: Path, found: Walked) -> None:
    """Notes a file for what its name says it is."""
    name = path.name.lower()
    if name.endswith(".safetensors"):
        if path.parent not in found.checkpoints:
            found.checkpoints.append(path.parent)
    elif name.endswith(_UNFINISHED):
        found.left.append(Left(path, "is a download that has not finished"))
    elif name.endswith(".gguf"):
        file = _file(path, home)
        if isinstance(file, File):
            found.files.append(file)
        else:
            found.left.append(file)
    elif path.is_symlink() and path.is_dir():
        found.left.append(Left(path, "is a link to another folder, which is not followed: name that one"))


def _file(path: Path, home: Path) -> File | Left:
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(home):
        return Left(path, f'is a link out of the folder, to "{real}": name that file, if it is to be adopted')
    try:
        status = real.stat()
    except FileNotFoundError:
        return Left(path, f'is a link to "{real}", which is not there')
    except OSError as error:
        return Left(path, f"cannot be read: {reason_of(error)}")
    if not stat.S_ISREG(status.st_mode):
        return Left(path, "is no file")
    if not os.access(real, os.R_OK):
        return Left(path, "cannot be read: permission denied")
    known = Digest(real.name) if real.parent.name == "blobs" and _SHA256.match(real.name) else None
    return File(path, real, status.st_size, known)
