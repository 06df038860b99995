"""The history of what was typed, in the file that Ollama keeps too: the last hundred lines. Source: spec cli §5.5."""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import History, InMemoryHistory

from corral.config import Config

MAX_LINES = 100


def history_of(config: Config) -> History:
    """The history that the settings ask for: the file, or one that ends with the process."""
    return InMemoryHistory() if config.no_history else LineHistory(config.home / "history")


class LineHistory(History):
    """The lines of a plain text file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        return reversed(self._lines())

    def store_string(self, string: str) -> None:
        """Rewrites the file as a whole, so that a crash leaves the old one; warns when it cannot."""
        lines = [*self._lines(), *filter(None, string.splitlines())][-MAX_LINES:]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._file.parent, prefix="history-")  # only its owner may read it
            with open(handle, "w", encoding="utf-8", errors="replace") as stream:
                stream.writelines(f"{line}\n" for line in lines)
            Path(name).replace(self._file)
        except OSError as error:
            print(f"Warning: cannot keep the history: {error}", file=sys.stderr)

    def _lines(self) -> list[str]:
        try:
            return self._file.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
