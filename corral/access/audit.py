"""The audit log: a line of JSON for each managing action, in a file of its own. Written by a thread."""

import logging
import queue
from io import TextIOWrapper
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from corral.golang import timestamps
from corral.system import private_files

log = logging.getLogger(__name__)

FILE_NAME = "audit.log"
MAX_BYTES = 4 << 20
"""Of one file; with `KEPT` older ones the log takes no more than five times that."""
KEPT = 4
MAX_WAITING = 10_000
"""Lines that may wait for a slow disk."""

Outcome: TypeAlias = Literal["done", "refused", "failed", "left"]


class Entry(Struct, frozen=True, kw_only=True):
    """Who did what. Holds no text of a request but names of models and keys."""

    time: str = field(default_factory=timestamps.now_utc)
    who: str
    """The id of a key; `local` for a program of this machine, `anyone` where no key is asked for."""
    key_name: str = ""
    address: str
    action: str
    models: tuple[str, ...] = ()
    key: str = ""
    """The id of the key that was made or revoked."""
    outcome: Outcome
    error: str = ""
    """The kind of the error."""
    request: str = ""
    """The id of the request."""


class AuditLog:
    """Takes entries without waiting. What cannot be written is reported in the server's log, once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
        self._listener: QueueListener | None = None
        self._is_lossy = False

    def add(self, entry: Entry) -> None:
        if self._listener is None:
            self._listener = QueueListener(self._queue, _File(self.path))
            self._listener.start()
        text = msgspec.json.encode(entry).decode()
        try:
            self._queue.put_nowait(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))
        except queue.Full:
            if not self._is_lossy:
                log.error("the audit log cannot keep up: lines are lost")
            self._is_lossy = True

    def close(self) -> None:
        """Returns when everything is written."""
        if self._listener is not None:
            self._listener.stop()
            for handler in self._listener.handlers:
                handler.close()
            self._listener = None


class _File(RotatingFileHandler):
    """The files of the log, which only their owner reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
        self._has_failed = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return open(self.baseFilename, "a", encoding="utf-8", opener=private_files.opener)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        if not self._has_failed:
            log.exception("the audit log cannot be written to %s", self.baseFilename)
        self._has_failed = True
