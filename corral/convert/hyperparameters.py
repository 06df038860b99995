"""The numbers and words of a `config.json`, each checked where it is asked for. Knows no architecture.

A value of null counts as absent. Errors are `ModelFileError` and name the key as the file has it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from corral.errors import ModelFileError
from corral.messages import Json

_MAX_SHOWN = 60


class Hyperparameters:
    """One object of a JSON file; `place` is how errors call it, such as `config.json: "rope_scaling"`."""

    def __init__(self, values: Mapping[str, Json], place: str = "config.json") -> None:
        self._values = values
        self._place = place

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def has(self, key: str) -> bool:
        """Whether there is a value."""
        return self._values.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int) -> int:
        """A whole number within bounds; one that is neither there nor has a default is an error."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._error(key, "is not a whole number", value)
        if not least <= value <= most:
            raise ModelFileError(f"{self._at(key)} is {value}, not between {least} and {most}")
        return value

    def number(self, key: str, default: float | None = None, *, least: float = 0.0, most: float = 1e9) -> float:
        """A number above `least`, up to `most`."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._error(key, "is not a number", value)
        if not (least < value <= most and math.isfinite(value)):  # NaN is neither
            raise ModelFileError(f"{self._at(key)} is {value}, not above {least:g} and up to {most:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._error(key, "is neither true nor false", value)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._error(key, "is not a text", value)
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        """`count` finite numbers above 0."""
        value = self._value(key, None)
        if not isinstance(value, list) or len(value) != count:
            raise ModelFileError(f"{self._at(key)} is not a list of {count} numbers")
        for one in value:
            if not isinstance(one, int | float) or isinstance(one, bool) or not 0 < one < 1e9:
                raise self._error(key, "has an element that is not a number above 0", one)
        return [float(one) for one in value]

    def texts(self, key: str) -> list[str] | None:
        """A list of texts; None without the key."""
        if not self.has(key):
            return None
        value = self._values[key]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._error(key, "is not a list of texts", value)
        return value

    def section(self, key: str) -> "Hyperparameters":
        """The object under a key; an empty one without it."""
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise self._error(key, "is not an object", value)
        return Hyperparameters(value, self._at(key))

    def one_of(self, key: str, allowed: Sequence[Json], default: Json) -> None:
        """Raises unless the value is among those that the engine computes with."""
        value = self._values.get(key, default)
        if value is not None and not any(type(value) is type(one) and value == one for one in allowed):
            raise self._error(key, "is not supported by the engine", value)

    def laid_over(self, defaults: Mapping[str, Json]) -> "Hyperparameters":
        """The same with values for what it leaves out, as the library that wrote it has them."""
        return Hyperparameters({**defaults, **self._values}, self._place)

    def _value(self, key: str, default: Json) -> Json:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is None:
            raise ModelFileError(f"{self._at(key)} is missing")
        return default

    def _at(self, key: str) -> str:
        return f'{self._place}: "{key}"'

    def _error(self, key: str, what: str, value: Json) -> ModelFileError:
        shown = repr(value)
        return ModelFileError(f"{self._at(key)} {what}: {shown[:_MAX_SHOWN]}{'…' if len(shown) > _MAX_SHOWN else ''}")
