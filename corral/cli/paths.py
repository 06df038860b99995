"""Paths as people type them."""

from pathlib import Path

from corral.errors import NotFound


def typed_path(text: str) -> Path:
    """Absolute, with `~` and `~user` as home folders; `NotFound` for the home of nobody."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise NotFound(f'no such file: "{text}"') from error
