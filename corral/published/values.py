"""Single values of a published file's metadata, of the type that a rule needs. Errors name the key.

Every function raises `ModelFileError` for a value of another type, and for a missing key without a default.
"""

import math

from corral.errors import ModelFileError
from corral.gguf import GGUF, Array, Tensor

_MOST = (1 << 32) - 1
_LONGEST = 1 << 16
"""Elements of an array that a rule reads; those of tokens are never read whole."""


def whole(file: GGUF, key: str, default: int | None = None) -> int:
    """A number from 0 to 2³²−1; of an array, which some keys have one number a layer in, the largest."""
    value = file.metadata.get(key)
    if isinstance(value, Array):
        return max(integers(file, key), default=0)
    if value is None and default is not None:
        return default
    if value is None:
        raise _missing(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelFileError(f'key "{key}" is not a whole number')
    if not 0 <= value <= _MOST:
        raise ModelFileError(f'key "{key}" is {value}, not between 0 and {_MOST}')
    return value


def real(file: GGUF, key: str, default: float | None = None) -> float:
    """A number with a fraction."""
    value = file.metadata.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise _missing(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelFileError(f'key "{key}" is not a number')
    return float(value)


def integers(file: GGUF, key: str, default: list[int] | None = None) -> list[int]:
    """The whole numbers of an array, of which there are 65,536 at most."""
    found = _elements(file, key, default)
    if any(isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < 1 << 31 for one in found):
        raise ModelFileError(f'key "{key}" is not an array of whole numbers')
    return [one for one in found if isinstance(one, int)]


def reals(file: GGUF, key: str, count: int, default: list[float] | None = None) -> list[float]:
    """So many numbers of an array."""
    found = _elements(file, key, default)
    if len(found) < count or any(isinstance(one, bool) or not isinstance(one, int | float) for one in found):
        raise ModelFileError(f'key "{key}" is not an array of {count} numbers')
    return [float(one) for one in found[:count] if isinstance(one, int | float)]


def tensor(file: GGUF, name: str) -> Tensor:
    """The tensor of that name."""
    found = find(file, name)
    if found is None:
        raise ModelFileError(f'tensor "{name}" is missing')
    return found


def find(file: GGUF, name: str) -> Tensor | None:
    """The tensor of that name, if there is one."""
    return next((one for one in file.tensors if one.name == name), None)


def dimension(file: GGUF, name: str, number: int) -> int:
    """One dimension of a tensor, the row length being number 0."""
    found = tensor(file, name)
    if number >= len(found.shape):
        raise ModelFileError(f'tensor "{name}" has the shape {list(found.shape)}, which is no matrix')
    return found.shape[number]


def has_any(file: GGUF, *prefixes: str) -> bool:
    """Whether there is a tensor whose name begins so."""
    return any(one.name.startswith(prefixes) for one in file.tensors)


def _elements(file: GGUF, key: str, default: list[int] | list[float] | None) -> list[object]:
    value = file.metadata.get(key)
    if value is None and default is not None:
        return list(default)
    if value is None:
        raise _missing(key)
    if not isinstance(value, Array):
        raise ModelFileError(f'key "{key}" is not an array')
    if value.length > _LONGEST:
        raise ModelFileError(f'key "{key}" has {value.length} elements, more than {_LONGEST}')
    return list(file.values(key))


def _missing(key: str) -> ModelFileError:
    return ModelFileError(f'key "{key}" is missing')
