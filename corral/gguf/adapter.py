"""LoRA adapters: whether a file is one that the engine can apply. To which model is `lora`'s business.

An adapter has for some tensors of a model two of its own, `NAME.lora_a` and `NAME.lora_b`, whose product is added.
The embeddings of tokens are the other way round: rows of their first one are picked, and then multiplied by the second.
"""

import math
from collections.abc import Mapping

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, Tensor
from corral.gguf.types import ValueType

_TYPES = {
    "general.architecture": ValueType.STRING,
    "general.type": ValueType.STRING,
    "adapter.type": ValueType.STRING,
    "adapter.lora.alpha": ValueType.FLOAT32,
}
"""What an adapter's keys are made of: the engine ends the process over any other type."""

_A, _B = ".lora_a", ".lora_b"


def check_adapter(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the key or tensor, for an adapter that fits no model."""
    if file.kind != "adapter":
        if file.types.get("general.type", ValueType.STRING) is not ValueType.STRING:
            raise ModelFileError('key "general.type" is not a text')
        return
    for key, kind in _TYPES.items():
        if file.types.get(key, kind) is not kind:
            raise ModelFileError(f'key "{key}" is of type {file.types[key].name.lower()}, not {kind.name.lower()}')
    alpha = file.metadata.get("adapter.lora.alpha")
    if isinstance(alpha, float) and not math.isfinite(alpha):
        raise ModelFileError(f'key "adapter.lora.alpha" is {alpha}')
    tensors = {tensor.name: tensor for tensor in file.tensors}
    for name in tensors if file.split is None else ():
        if name.endswith((_A, _B)):
            _check_pair(tensors, name.removesuffix(_A).removesuffix(_B))


def _check_pair(tensors: Mapping[str, Tensor], base: str) -> None:
    first, second = tensors.get(base + _A), tensors.get(base + _B)
    if first is None or second is None:
        missing = _A if first is None else _B
        raise ModelFileError(f'tensor "{base}{missing}" is missing')
    rank = _row(first) if _is_picked(base) else _rows(first)
    if rank != _row(second) or _others(first) != _others(second):
        raise ModelFileError(
            f'tensors "{base}{_A}" and "{base}{_B}" have the shapes {list(first.shape)} and {list(second.shape)}, '
            "which cannot be multiplied"
        )


def _is_picked(base: str) -> bool:
    return base.endswith("token_embd.weight")


def _row(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.shape else 1


def _rows(tensor: Tensor) -> int:
    return tensor.shape[1] if len(tensor.shape) > 1 else 1


def _others(tensor: Tensor) -> tuple[int, int]:
    third, fourth = (*tensor.shape, 1, 1, 1, 1)[2:4]
    return third, fourth
