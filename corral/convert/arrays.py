"""Numbers of 8, 16 and 32 bits, and how one type becomes another, a slice at a time. Knows no tensor's meaning.

bfloat16, which NumPy lacks, is the upper half of a 32-bit float and travels as `uint16`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.errors import ModelFileError

Array = NDArray[Any]

FLOATS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""How each type of number travels; the names are those of safetensors and of GGUF alike."""

_EXPONENTS = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
"""The bits of the exponent: all of them are set in infinite numbers and in NaN."""


def widened(array: Array, dtype: str) -> NDArray[np.float32]:
    """The numbers as 32-bit floats: exact."""
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    return np.asarray(array, "<f4")


def cast(array: Array, source: str, target: str) -> Array:
    """The numbers in another type, rounded to the nearest even; the same array where the types agree."""
    if source == target:
        return array
    wide = widened(array, source)
    if target == "F32":
        return wide
    if target == "F16":
        with np.errstate(over="ignore", under="ignore"):
            return wide.astype("<f2")
    raw = wide.view("<u4")
    rounded: Array = ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def check_finite(array: Array, dtype: str, name: str, source: Array, source_dtype: str) -> None:
    """Raises, with the tensor's name, for NaN and infinite numbers; `source` is what `array` was cast from."""
    if _is_finite(array, dtype):
        return
    if _is_finite(source, source_dtype):
        most = float(np.abs(widened(source, source_dtype)).max())
        raise ModelFileError(f'tensor "{name}" has the number {most:g}, which is too large for {dtype}')
    raise ModelFileError(f'tensor "{name}" has numbers that are infinite or NaN')


def _is_finite(array: Array, dtype: str) -> bool:
    mask = _EXPONENTS[dtype]
    raw: NDArray[np.unsignedinteger[Any]] = array.view(np.uint32 if dtype == "F32" else np.uint16)
    without_sign = raw & raw.dtype.type(mask | (mask - 1))
    return not raw.size or int(without_sign.max()) < mask


def _e4m3() -> NDArray[np.float32]:
    """The 256 numbers of F8_E4M3 by their bits: 4 of exponent with bias 7, 3 of fraction; all ones is NaN."""
    bits = np.arange(256)
    exponent, fraction = (bits >> 3) & 15, bits & 7
    normal = np.ldexp(1 + fraction / 8, exponent - 7)
    found = np.where(exponent == 0, np.ldexp(fraction / 8, -6), normal)
    found[(bits & 127) == 127] = np.nan
    return np.where(bits & 128, -found, found).astype(np.float32)


E4M3 = _e4m3()
