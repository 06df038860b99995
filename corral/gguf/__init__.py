"""The GGUF file format, distrustfully: `gguf.read(path)` returns a checked `GGUF` or raises `ModelFileError`.

Knows nothing of serving. `types` has the format's words, `cursor` reads bytes within bounds, `reader` checks the
structure, `sanity` and `attention` the numbers, `weights`, `projector` and `adapter` the tensors, `file` says what a
file amounts to; `writer` and `output` make new files. `check_new` has more for a file from which a model is made, or
that is loaded for the first time: `shapes`, `vocabulary` and `chat_template`; `lora` says whether an adapter is one for
a model.
"""

from corral.gguf.file import GGUF, Array, Kind, Tensor, Value
from corral.gguf.reader import (
    RULES,
    check,
    check_new,
    looks_like_gguf,
    read,
    read_beginning,
    read_planned,
    read_structure,
)
from corral.gguf.types import FILE_TYPES, TENSOR_TYPES, TensorType, ValueType

__all__ = [
    "FILE_TYPES",
    "GGUF",
    "RULES",
    "TENSOR_TYPES",
    "Array",
    "Kind",
    "Tensor",
    "TensorType",
    "Value",
    "ValueType",
    "check",
    "check_new",
    "looks_like_gguf",
    "read",
    "read_beginning",
    "read_planned",
    "read_structure",
]
