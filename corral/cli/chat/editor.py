"""A message written in an editor of the user's choice. Source: spec cli §5.5."""

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from corral.errors import CorralError


def edited(text: str, editor: str) -> str:
    """The text as it is after the editor has ended, without line breaks at its end.

    `editor` is a command, arguments included. `CorralError` when it cannot be started or fails.
    """
    try:
        command = shlex.split(editor)
    except ValueError:  # a quote that is not closed
        command = [editor]
    try:
        with tempfile.TemporaryDirectory(prefix="corral-prompt-") as folder:  # only its owner may look into it
            file = Path(folder, "prompt.txt")
            file.write_text(text, "utf-8", "replace")
            _run([*command, str(file)], editor)
            return file.read_text("utf-8", "replace").rstrip("\r\n")
    except OSError as error:
        raise CorralError(f"cannot write the message with an editor: {error.strerror or error}") from error


def _run(command: Sequence[str], editor: str) -> None:
    try:
        status = subprocess.run(command).returncode
    except (FileNotFoundError, PermissionError) as error:
        raise CorralError(
            f'editor "{editor}" not found, set OLLAMA_EDITOR to the path of your preferred editor'
        ) from error
    if status:
        raise CorralError(f'editor "{editor}" ended with status {status}; the message is as it was')
