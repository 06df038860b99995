"""The page's files, read once, with what a browser needs to keep them: a type, a tag, and a compressed form."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from msgspec import Struct

from corral.server.page.joined import joined

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class File(Struct, frozen=True):
    """What is sent of a file; `tag` changes with its bytes."""

    type: str
    data: bytes
    compressed: bytes
    tag: str


_COMMENT = re.compile(rb"^[ \t]*/\*.*?\*/[ \t]*\n", re.MULTILINE | re.DOTALL)
"""A comment with lines of its own. Browsers get none: compressed, comments are a seventh of all that is sent."""
_STYLES = ("base", "chat", "text", "panels")
"""Files of `style/`, in their order. A browser gets them as one, like the modules (`joined`)."""


@cache
def files() -> dict[str, File]:
    """What a browser gets, by its path, such as `main.js`."""
    found = dict(_sources())
    modules = {path: found.pop(path).decode() for path in list(found) if path.endswith(".js")}
    found["main.js"] = joined(modules).encode()
    found["style.css"] = b"\n".join(found.pop(f"style/{name}.css") for name in _STYLES)
    found["index.html"] = found["index.html"].replace(b"/page/", f"/page/{version()}/".encode())
    return {path: _as_file(path, data) for path, data in found.items()}


@cache
def version() -> str:
    """Changes with any file: part of every address, so that browsers may keep files as long as they like."""
    return hashlib.sha256(b"".join(data for _, data in _sources())).hexdigest()[:12]


@cache
def _sources() -> tuple[tuple[str, bytes], ...]:
    return tuple(_found(resources.files(__package__).joinpath("static"), ""))


def _found(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = prefix + entry.name
        if entry.is_dir():
            yield from _found(entry, path + "/")
        elif PurePosixPath(path).suffix in _TYPES:
            yield path, _COMMENT.sub(b"", entry.read_bytes())


def _as_file(path: str, data: bytes) -> File:
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    return File(_TYPES[PurePosixPath(path).suffix], data, gzip.compress(data, mtime=0), tag)
