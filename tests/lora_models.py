"""LoRA adapters of random weights for the checkpoints of `tests/reference/models.py`, and these checkpoints merged."""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests import safetensors_bytes
from tests.reference.models import Case

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def matrices(case: Case) -> list[str]:
    """The modules of a checkpoint that LoRA is trained for as a rule: the projections of its layers."""
    return [
        name.removesuffix(".weight")
        for name in case.weights()
        if name.endswith("_proj.weight") and "expert" not in name
    ]


def halves(case: Case, modules: Iterable[str], ranks: Mapping[str, int]) -> dict[str, tuple[Array, Array]]:
    """`lora_A` (rank by inputs) and `lora_B` (outputs by rank) of each module; ranks by the end of its name, or 4."""
    weights, found = case.weights(), {}
    for module in modules:
        rows, columns = weights[f"{module}.weight"].shape
        rank = next((rank for end, rank in ranks.items() if module.endswith(end)), 4)
        random = np.random.default_rng([7, zlib.crc32(module.encode())])
        down = random.normal(0, 1 / columns**0.5, (rank, columns)).astype(np.float32)
        found[module] = down, random.normal(0, 0.4, (rows, rank)).astype(np.float32)
    return found


def write_peft(
    folder: Path, pairs: Mapping[str, tuple[Array, Array]], *, dtype: str = "F32", **config: Any
) -> dict[str, Path]:
    """The files of a PEFT adapter, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**usual, **config}))
    tensors = {}
    for module, (down, up) in pairs.items():
        if module.endswith("embed_tokens"):
            tensors[f"base_model.model.{module}.lora_embedding_A"] = down
            tensors[f"base_model.model.{module}.lora_embedding_B"] = up
        else:
            tensors[f"base_model.model.{module}.lora_A.weight"] = down
            tensors[f"base_model.model.{module}.lora_B.weight"] = up
    safetensors_bytes.write(folder / "adapter_model.safetensors", tensors, dtype)
    return {file.name: file for file in folder.iterdir()}


def write_mlx(folder: Path, pairs: Mapping[str, tuple[Array, Array]], scale: float) -> dict[str, Path]:
    """The files of an adapter of mlx-lm, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": scale, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for module, (down, up) in pairs.items():
        tensors[f"{module}.lora_a"] = np.ascontiguousarray(down.T)
        tensors[f"{module}.lora_b"] = np.ascontiguousarray(up.T)
    safetensors_bytes.write(folder / "adapters.safetensors", tensors)
    return {file.name: file for file in folder.iterdir()}


def write_merged(
    folder: Path, case: Case, pairs: Mapping[str, tuple[Array, Array]], strengths: Mapping[str, float] | float
) -> dict[str, Path]:
    """The checkpoint's files by name, with `strength` times each pair's product added to its matrix."""
    weights = case.weights()
    for module, (down, up) in pairs.items():
        strength = strengths if isinstance(strengths, float) else strengths[module]
        product = strength * (up.astype(np.float64) @ down)
        change = product.T if module.endswith("embed_tokens") else product
        weights[f"{module}.weight"] = (weights[f"{module}.weight"] + change).astype(np.float32)
    files = case.write(folder)
    safetensors_bytes.write(files["model.safetensors"], weights)
    return files
