"""A secret that is all there is in a file. Blocks."""

import os
from pathlib import Path

from corral.errors import ConfigError, reason_of
from corral.system.files import can_be_changed_by_others

_MAX_SECRET = 4096


def read_secret(path: Path) -> str:
    """The secret that is all there is in a file. `ConfigError` for a file that others may write, and for one that holds
    no secret; none of it is in the sentence."""
    try:
        with open(path, "rb") as file:
            if can_be_changed_by_others(os.fstat(file.fileno())):
                raise ConfigError(f'others may write "{path}"; `chmod 600 {path}` ends that')
            data = file.read(_MAX_SECRET + 1)
    except OSError as error:
        raise ConfigError(f'"{path}" cannot be read: {reason_of(error)}') from error
    text = data.decode("latin-1").strip()
    if len(data) > _MAX_SECRET or not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f'"{path}" must hold one key and nothing else')
    return text
