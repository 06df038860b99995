"""How a model's files get to the server: by their digests, where it has them or can read them, else uploaded.

A server of ours on this machine gets the paths of files, and takes over those that have the digest it is given; any
other server gets their bytes. Source: spec cli §2.3, api §12.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from corral.cli.display.progress import Display
from corral.client import Client
from corral.errors import CorralError, reason_of
from corral.names import Digest

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
CHUNK = 1 << 20
LARGE = 8 << 20
"""Bytes of a file that takes long enough to be shown while it is read."""


class Part(NamedTuple):
    """A file, or a stretch of one; `size` is -1 for all that follows `offset`."""

    path: Path
    offset: int = 0
    size: int = -1

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.size < 0 else self.size

    def chunks(self) -> Iterator[bytes]:
        """Its bytes. `CorralError` when they cannot be read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                left = self.length
                while left and (chunk := file.read(min(CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise CorralError(f'cannot read "{self.path}": {reason_of(error)}') from error


class Files:
    """The files of one model, each hashed once. `digests` are theirs."""

    def __init__(self, client: Client, display: Display) -> None:
        self._client = client
        self._display = display
        self.digests: dict[Part, Digest] = {}

    def add(self, files: Mapping[str, Part]) -> dict[str, str]:
        """Hashes files; their digests by their names."""
        for part in files.values():
            if part not in self.digests:
                self.digests[part] = self._known(part) or self._hash(part)
        return {name: str(self.digests[part]) for name, part in files.items()}

    def missing(self) -> list[Part]:
        """Those that the server does not have."""
        return [part for part, digest in self.digests.items() if not self._client.has_blob(digest)]

    def upload(self, parts: Iterable[Part]) -> None:
        for part in parts:
            digest = self.digests[part]
            self._client.add_blob(digest, part.length, part.chunks(), self._counter(part, f"copying file {digest}"))

    def _known(self, part: Part) -> Digest | None:
        """The digest in the name of a blob that the server has, too: what `show --modelfile` names is not hashed."""
        match = _BLOB.fullmatch(part.path.name) if part.path.parent.name == "blobs" else None
        if match is None or part != Part(part.path):
            return None
        digest = Digest(match[1])
        return digest if self._client.has_blob(digest) else None

    def _hash(self, part: Part) -> Digest:
        state, done = hashlib.sha256(), 0
        count = self._counter(part, f"reading {part.path.name}")
        for chunk in part.chunks():
            state.update(chunk)
            done += len(chunk)
            count(done)
        return Digest(state.hexdigest())

    def _counter(self, part: Part, message: str) -> Callable[[int], None]:
        """Shows a bar of the bytes done, where there are many."""
        size = part.length

        def count(done: int) -> None:
            if size >= LARGE:
                self._display.advance(f"{part.path} {message}", message, max(size, done), done)

        return count
