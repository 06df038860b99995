"""Whether the tensors of a GGUF file are of types that the engine calculates with. Of shapes only dimensions count.

The engine looks for the arithmetic of a type where there may be none, and ends the process over a type that one of its
operations does not take.
"""

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, Tensor

_WITHOUT_ARITHMETIC = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})

_TABLES = ("tid2eid", "d2t", "t2d")
"""Parts of the names of tensors that are tables of numbers: token to expert, draft token to token."""

_WEIGHTS = (".weight", ".bias", ".scale", ".lora_a", ".lora_b", "ssm_a", "ssm_d")
"""How names of tensors end that are calculated with."""

_OF_32_BITS = ("_norm.weight", ".bias", ".scale", "ssm_a", "ssm_d", "ssm_conv1d.weight", "token_types.weight")
"""How names of tensors end that are added, multiplied or folded, which the engine does in 32-bit floats only."""


def check_types(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the tensor, for weights in types the engine does not calculate with."""
    for tensor in file.tensors:
        if _is_calculated_with(tensor) and not _has_arithmetic(tensor):
            raise ModelFileError(
                f'tensor "{tensor.name}" has the type {tensor.type}, which is not one for such weights'
            )


def _is_calculated_with(tensor: Tensor) -> bool:
    if any(table in tensor.name for table in _TABLES):
        return False
    return tensor.name.endswith(_WEIGHTS) or len(tensor.shape) < 2


def _has_arithmetic(tensor: Tensor) -> bool:
    if len(tensor.shape) < 2 or tensor.name.endswith(_OF_32_BITS):
        return tensor.type == "F32"
    return tensor.type not in _WITHOUT_ARITHMETIC
