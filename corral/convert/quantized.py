"""Checkpoints whose weights are packed: which of these can be read. Source: `quantization_config` of `config.json`."""

from corral.convert.hyperparameters import Hyperparameters
from corral.errors import ModelFileError


def check(hyperparameters: Hyperparameters) -> None:
    """Raises for weights that were packed by a method other than FP8 with scales."""
    if not hyperparameters.has("quantization_config"):
        return
    method = hyperparameters.section("quantization_config").text("quant_method", "unknown")
    packed = hyperparameters.section("quantization_config").text("format", "float-quantized")
    if method != "fp8" and not (method == "compressed-tensors" and packed == "float-quantized"):
        raise ModelFileError(f'weights quantised by "{method[:60]}" cannot be converted')
