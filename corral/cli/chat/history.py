"""The history of what was typed, in the file that Ollama keeps too: the last hundred lines. Source: spec cli §5.5."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import History

from corral.system import private_files

MAX_LINES = 100
MAX_BYTES = 1 << 20
"""How much of the file's end is read: it may have been written by others."""


class LineHistory(History):
    """The lines of a plain text file, and what was typed since; `kept` says whether that goes to the file."""

    def __init__(self, file: Path, *, kept: bool = True) -> None:
        super().__init__()
        self._file = file
        self.kept = kept

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        return reversed(self._lines()) if self.kept else ()

    def store_string(self, string: str) -> None:
        """Rewrites the file as a whole, so that a crash leaves the old one; warns when it cannot."""
        if not self.kept:
            return
        lines = [*self._lines(), *filter(None, string.splitlines())][-MAX_LINES:]
        try:
            private_files.write(self._file, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        except OSError as error:
            print(f"Warning: cannot keep the history: {error}", file=sys.stderr)

    def _lines(self) -> list[str]:
        try:
            with self._file.open("rb") as stream:
                start = max(0, stream.seek(0, os.SEEK_END) - MAX_BYTES)
                stream.seek(start)
                lines = stream.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return lines[1:] if start else lines
