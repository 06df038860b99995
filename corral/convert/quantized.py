"""Checkpoints whose weights are packed: which of these can be read. Source: `quantization_config` of `config.json`."""

from corral.convert.hyperparameters import Hyperparameters
from corral.convert.safetensors import shortened
from corral.errors import ModelFileError

_BLOCKS = [1 << power for power in range(16)]
"""Sizes of blocks with a scale each; which one it is follows from the scales' shape."""


def check(hyperparameters: Hyperparameters) -> None:
    """Raises for weights that were packed by a method other than FP8 with scales."""
    if not hyperparameters.has("quantization_config"):
        return
    given = hyperparameters.section("quantization_config")
    method, packed = given.text("quant_method", "unknown"), given.text("format", "float-quantized")
    if method != "fp8" and not (method == "compressed-tensors" and packed == "float-quantized"):
        raise ModelFileError(f'weights quantised by "{shortened(method)}" cannot be converted')
    if given.has("weight_block_size"):
        for size in given.numbers("weight_block_size", 2):
            if size not in _BLOCKS:
                raise ModelFileError(f"weights with a scale for each {size:g} numbers cannot be converted")
