"""Paths as people type them."""

from pathlib import Path

from corral.config.values import parse_path
from corral.errors import NotFound


def typed_path(text: str) -> Path:
    """As `parse_path`; `NotFound` for the home of a user that does not exist."""
    try:
        return parse_path(text)
    except ValueError as error:
        raise NotFound(f'no such file: "{text}"') from error


def check_file(path: Path) -> None:
    """`NotFound` unless there is a file; `OSError` where that cannot be said, as in a folder of another user."""
    from corral.system.files import exists

    if not exists(path) or not path.is_file():
        raise NotFound(f'no such file: "{path}"')
