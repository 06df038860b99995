"""How a model's files get to the server: by their digests, where it has them or can read them, else uploaded.

A server of ours on this machine gets the paths of files, and takes over those that have the digest it is given; any
other server gets their bytes. Source: spec cli §2.3, api §12.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from corral.cli.display.progress import Display
from corral.client import Client
from corral.errors import CorralError
from corral.names import Digest

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
CHUNK = 1 << 20
LARGE = 8 << 20
"""Bytes of a file that takes long enough to be shown while it is read."""


class Files:
    """The files of one model, each hashed once. `digests` are theirs by path."""

    def __init__(self, client: Client, display: Display) -> None:
        self._client = client
        self._display = display
        self.digests: dict[Path, Digest] = {}

    def add(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Hashes files; their digests by their names."""
        for path in files.values():
            if path not in self.digests:
                self.digests[path] = self._known(path) or self._hash(path)
        return {name: str(self.digests[path]) for name, path in files.items()}

    def missing(self) -> list[Path]:
        """Those that the server does not have."""
        return [path for path, digest in self.digests.items() if not self._client.has_blob(digest)]

    def upload(self, paths: Iterable[Path]) -> None:
        for path in paths:
            digest = self.digests[path]
            self._client.add_blob(digest, path, self._counter(path, f"copying file {digest}"))

    def _known(self, path: Path) -> Digest | None:
        """The digest in the name of a blob that the server has, too: what `show --modelfile` names is not hashed."""
        match = _BLOB.fullmatch(path.name) if path.parent.name == "blobs" else None
        if match is None:
            return None
        digest = Digest(match[1])
        return digest if self._client.has_blob(digest) else None

    def _hash(self, path: Path) -> Digest:
        state, done = hashlib.sha256(), 0
        try:
            count = self._counter(path, f"reading {path.name}")
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    state.update(chunk)
                    done += len(chunk)
                    count(done)
        except OSError as error:
            raise CorralError(f'cannot read "{path}": {(error.strerror or str(error)).lower()}') from error
        return Digest(state.hexdigest())

    def _counter(self, path: Path, message: str) -> Callable[[int], None]:
        """Shows a bar of the bytes done, where there are many."""
        size = path.stat().st_size

        def count(done: int) -> None:
            if size >= LARGE:
                self._display.advance(f"{path} {message}", message, max(size, done), done)

        return count
