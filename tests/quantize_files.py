"""GGUF files for the tests of quantising: real tensors of any name and shape, metadata as a model has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, quants

from corral import gguf
from corral.gguf import ValueType, writer

Array = np.ndarray[Any, Any]

LLAMA: dict[str, int | str] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 512,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 4,
}


def fields(values: Mapping[str, int | str]) -> dict[str, bytes]:
    return {
        key: writer.encode(ValueType.STRING if isinstance(value, str) else ValueType.UINT32, value)
        for key, value in values.items()
    }


def bf16(numbers: Array) -> Array:
    """32-bit floats without their lower half: exact for what random weights are rounded to here."""
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_gguf(path: Path, values: Mapping[str, int | str], tensors: Mapping[str, Array]) -> Path:
    """Arrays of float32, float16 or uint16 (BF16), rows last, under their names."""
    kinds = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}
    listed = [writer.new_tensor(name, kinds[a.dtype.name], a.shape[::-1]) for name, a in tensors.items()]
    laid_out = writer.layout(fields(values), listed)
    with open(path, "wb") as file:
        file.write(laid_out.header)
        for tensor, array in zip(laid_out.tensors, tensors.values(), strict=True):
            file.write(array.tobytes() + laid_out.padding(tensor))
    return path


def raw(path: Path) -> dict[str, bytes]:
    """Each tensor's bytes."""
    whole = path.read_bytes()
    return {tensor.name: whole[tensor.offset : tensor.offset + tensor.size] for tensor in gguf.read(path).tensors}


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in gguf.read(path).tensors}


def numbers(path: Path) -> dict[str, Array]:
    """Each tensor's numbers as 32-bit floats, as the format's reference library reads them."""
    return {
        tensor.name: quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for tensor in GGUFReader(path).tensors
    }


def as_f16(source: Path, target: Path, *, layers: int = 1000) -> Path:
    """The model in `source` with the weights of its first layers as they were before they were quantised."""
    file = gguf.read(source)
    listed = [
        writer.new_tensor(one.name, "F16" if one.type != "F32" and layer_of(one.name) < layers else one.type, one.shape)
        for one in file.tensors
    ]
    changed = {"general.file_type": writer.encode(ValueType.UINT32, 1)}
    laid_out = writer.layout(writer.copied_fields(file) | changed, listed)
    with open(target, "wb") as output:
        output.write(laid_out.header)
        for given, tensor in zip(GGUFReader(source).tensors, laid_out.tensors, strict=True):
            kept = given.tensor_type.name == tensor.type
            array = given.data if kept else quants.dequantize(given.data, given.tensor_type).astype(np.float16)
            output.write(array.tobytes() + laid_out.padding(tensor))
    return target


def layer_of(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blk.") else 0
