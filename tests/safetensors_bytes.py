"""Safetensors files written for tests, well-formed or not, in every type of number."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "U8": "u1", "I64": "<i8"}


def write(path: Path, tensors: Mapping[str, Array], dtype: str = "F32") -> Path:
    """A well-formed file of 32-bit floats that are stored as `dtype`: F64, F32, F16 or BF16."""
    stored = {name: (dtype, array.shape, encoded(array, dtype)) for name, array in tensors.items()}
    return write_raw(path, stored)


def encoded(array: Array, dtype: str) -> bytes:
    """The numbers as they stand in a file; bfloat16 is cut, not rounded."""
    if dtype == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype(_KINDS[dtype]).tobytes()


def write_raw(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """A well-formed file of tensors given by type, shape and bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    return write_file(path, json.dumps(header).encode(), b"".join(raw for _, _, raw in tensors.values()))


def write_file(path: Path, header: bytes, data: bytes = b"") -> Path:
    """Any header and any data."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path
