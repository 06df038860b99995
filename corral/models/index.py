"""What lists show of each model, kept on disk by digest, so that a list reads no model's file a second time.

The file lies in the models folder, not in Corral's own: it goes where the models go, servers that share the models
share it, and it can forget what is no longer there. Ollama looks at `blobs` and `manifests` only. A row is a hint: it
holds as long as the blobs it was made of have the same sizes and times. A file that is damaged, foreign, or of another
version of Corral counts as empty; one that cannot be written is done without.
"""

import logging
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct

from corral import __version__
from corral.errors import StoreError
from corral.store import GRACE, disk

log = logging.getLogger(__name__)

FORMAT = 1
"""To be raised when a `Summary` comes to mean something else within one version of Corral."""

MAX_MODELS = 10_000
MAX_BYTES = 32 << 20
"""What the file may have; more models than that are summarised anew after each start."""

_TEMPORARY = ".new-"

Signature: TypeAlias = tuple[tuple[int, int] | None, ...]
"""Size and modification time (ns) of each blob that a summary was made of; None for one that was missing."""


class Summary(Struct, frozen=True):
    """What lists show of a model besides its manifest. Texts are empty and numbers 0 where neither config nor file
    says anything; `families` is None where the config has none."""

    format: str
    family: str
    families: tuple[str, ...] | None
    parameter_size: str
    file_type: str
    """The quantisation, as the config says it."""
    quantization: str = ""
    """The same, from the file where the config does not say it."""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ()
    problem: str = ""
    """Why the model cannot be used; all else is then from the config alone."""


class _Row(Struct, frozen=True):
    signature: Signature
    summary: Summary


class _File(Struct):
    version: str
    format: int
    rows: dict[str, dict[str, _Row]]


class Index:
    """The rows, by a manifest's digest in hexadecimal and the setting that decides between its templates.

    Reads its file at the first call. Its calls block, and may come from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, _Row]] | None = None
        self._is_saved = True

    def get(self, digest: str, setting: str, signature: Signature) -> Summary | None:
        """The summary, if it was made of blobs like these."""
        with self._lock:
            row = self._loaded().get(digest, {}).get(setting)
        return row.summary if row is not None and row.signature == signature else None

    def put(self, digest: str, setting: str, signature: Signature, summary: Summary) -> None:
        """Adds a row, for `save` to write."""
        with self._lock:
            rows = self._loaded().setdefault(digest, {})
            row = _Row(signature, summary)
            if rows.get(setting) != row:
                rows[setting] = row
                self._is_saved = False

    def save(self, digests: Collection[str]) -> None:
        """Drops the rows of all other digests, and writes the file if that or a `put` has changed anything.

        Rows that another server wrote meanwhile are kept, if they are of these digests.
        """
        with self._lock:
            rows = self._loaded()
            if self._is_saved and all(digest in digests for digest in rows):
                return
            self._is_saved = True
            others = self._read()
            self._rows = {
                digest: others.get(digest, {}) | rows.get(digest, {})
                for digest in digests
                if digest in others or digest in rows
            }
            try:
                self._write(self._rows)
            except (OSError, StoreError) as error:
                log.debug("the index of models cannot be written: %s", error)

    def _loaded(self) -> dict[str, dict[str, _Row]]:
        if self._rows is None:
            self._rows = self._read()
        return self._rows

    def _read(self) -> dict[str, dict[str, _Row]]:
        try:
            with disk.open_regular(self._path) as file:
                found = msgspec.json.decode(file.read(MAX_BYTES), type=_File)
        except (OSError, StoreError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return {}
        return found.rows if (found.version, found.format) == (__version__, FORMAT) else {}

    def _write(self, rows: dict[str, dict[str, _Row]]) -> None:
        folder = self._path.parent
        if not rows:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # there is none, or another server writes into it
                folder.rmdir()
            return
        written = dict(list(rows.items())[-MAX_MODELS:])
        data = msgspec.json.encode(_File(__version__, FORMAT, written))
        if len(data) > MAX_BYTES:
            return
        folder.mkdir(parents=True, exist_ok=True)
        disk.write_whole(self._path, data, disk.temporary(folder, _TEMPORARY))
        _remove_leftovers(folder, self._path.stat().st_mtime - GRACE)


def _remove_leftovers(folder: Path, oldest: float) -> None:
    """Deletes what servers that were killed while they wrote have left behind before the time `oldest`."""
    for entry in os.scandir(folder):
        if entry.name.startswith(_TEMPORARY):
            with suppress(OSError):
                if entry.stat().st_mtime <= oldest:
                    Path(entry.path).unlink()
