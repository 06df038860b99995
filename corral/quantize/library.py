"""The functions that round numbers to fewer bits, from the library inside the engine's package. Knows rows, no model.

They let go of the interpreter lock while they run, so several threads can call them at once.
"""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from corral.errors import EngineError
from corral.gguf import TENSOR_TYPES

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

_NUMBERS = {layout.name: number for number, layout in TENSOR_TYPES.items()}

_address, _count = ctypes.c_void_p, ctypes.c_int64


class _Traits(ctypes.Structure):
    """The first field of what the engine knows of a type: how it quantises numbers while a model runs."""

    _fields_: ClassVar = [("from_float", ctypes.CFUNCTYPE(None, _address, _address, _count))]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ggml_cpu_init": (None, []),
    "ggml_cpu_fp16_to_fp32": (None, [_address, _address, _count]),
    "ggml_cpu_bf16_to_fp32": (None, [_address, _address, _count]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [ctypes.c_int, _address, _address, _count, _count, _count, _address],
    ),
    "ggml_get_type_traits_cpu": (ctypes.POINTER(_Traits), [ctypes.c_int]),
    "ggml_validate_row_data": (ctypes.c_bool, [ctypes.c_int, _address, ctypes.c_size_t]),
}
"""What is called, with the type it returns and those it takes."""


class Library:
    """Rounding, there and back. The arrays have to be contiguous and as long as said: nothing checks them again."""

    def __init__(self, path: Path) -> None:
        try:
            loaded = ctypes.CDLL(str(path))
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise EngineError(f"the engine's library cannot quantize: {error}") from error
        self._loaded = loaded
        loaded.ggml_cpu_init()  # fills tables that the conversion of 16-bit floats may use
        self._to_q8_0 = loaded.ggml_get_type_traits_cpu(_NUMBERS["Q8_0"]).contents.from_float

    def to_floats(self, kind: str, source: Bytes, space: Floats) -> Floats:
        """Numbers of type F32, F16 or BF16 as F32: converted into `space`, which has room for them, if need be."""
        if kind == "F32":
            return source.view(np.float32)
        target = space[: source.size // 2]
        convert = self._loaded.ggml_cpu_fp16_to_fp32 if kind == "F16" else self._loaded.ggml_cpu_bf16_to_fp32
        convert(source.ctypes.data, target.ctypes.data, target.size)
        return target

    def from_floats(self, kind: str, source: Floats, target: Bytes, row: int, weights: Floats | None) -> None:
        """Whole rows of `row` numbers rounded to a type; `weights` says how much each place of a row counts.

        Q8_0, which has no use for weights, is made by the function for it that the engine uses while a model runs: five
        times as fast. In one of some ten thousand numbers the two differ, by the last bit, where both are as near.
        """
        if kind == "Q8_0":
            self._to_q8_0(source.ctypes.data, target.ctypes.data, source.size)
        else:
            self.from_floats_plainly(kind, source, target, row, weights)

    def from_floats_plainly(self, kind: str, source: Floats, target: Bytes, row: int, weights: Floats | None) -> None:
        """As `from_floats`, by the one function that serves all types."""
        place = None if weights is None else weights.ctypes.data
        arguments = (source.ctypes.data, target.ctypes.data, 0, source.size // row, row, place)
        written = self._loaded.ggml_quantize_chunk(_NUMBERS[kind], *arguments)
        assert written == target.size, f"{written} bytes instead of {target.size}"

    def is_finite(self, kind: str, rows: Bytes) -> bool:
        """Whether quantised rows stand for finite numbers: a scale of 16 bits may have overflowed."""
        return bool(self._loaded.ggml_validate_row_data(_NUMBERS[kind], rows.ctypes.data, rows.size))


@cache
def library() -> Library:
    """The library inside the installed `xllamacpp`, loaded once; `EngineError` when it is not there or has changed."""
    package = importlib.util.find_spec("xllamacpp")
    folders = (package.submodule_search_locations if package else None) or []
    found = [path for folder in folders for path in Path(folder).glob("xllamacpp*.so")]
    if not found:
        raise EngineError("the engine's library cannot quantize: there is none in the package xllamacpp")
    return Library(found[0])
