"""Going through a text of values with commas between, as several notations of calls have it. Knows none of them."""

import re

_SPACE = re.compile(r"\s*")


def skip_space(text: str, at: int) -> int:
    """The first place from `at` on that is no white space."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


def after_value(text: str, at: int, closing: str) -> int:
    """Behind the comma after a value, or at what closes them all. `ValueError` where neither comes."""
    at = skip_space(text, at)
    if text.startswith(",", at):
        return skip_space(text, at + 1)
    if not text.startswith(closing, at):
        raise ValueError("neither comma nor end")
    return at
