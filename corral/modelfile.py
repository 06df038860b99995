"""Modelfile text. Knows the grammar's writing side; what the commands mean is decided elsewhere. Source: api §13."""

from collections.abc import Iterable


def write(commands: Iterable[tuple[str, str]]) -> str:
    """Commands as lines, `NAME value` each, with values quoted where they need it."""
    return "".join(f"{name} {quote(value)}\n" for name, value in commands)


def quote(value: str) -> str:
    """Bare when it can be; in `"` when it spans lines or begins or ends with a space; in `\"\"\"` when it has both."""
    if "\n" not in value and not value.startswith(" ") and not value.endswith(" "):
        return value
    return f'"""{value}"""' if '"' in value else f'"{value}"'
