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
