"""What twins are built of: a decoder, the tower of an encoder, random weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from tests.gguf_bytes import ArrayOf
from tests.published_models.parts import Parts, Stored, stored
from tests.tiny_models import LAYERS, tiny_llama


@dataclass(frozen=True)
class Twins:
    """The same weights twice: in the engine's layout, and as they are published."""

    model: Path
    published: Path
    projector: Path | None = None
    """In the engine's layout; None without an encoder."""
    published_projector: Path | None = None
    """Where that is a file of its own as published."""
    embeds: bool = False
    """Whether it makes vectors of texts."""


F16 = GGMLQuantizationType.F16
F32_KIND = GGMLQuantizationType.F32


def halved(parts: Parts) -> None:
    """Makes F16 of all matrices, as most published files have them."""
    parts.tensors = {
        name: tensor.as_kind(F16) if len(tensor.shape) > 1 else tensor for name, tensor in parts.tensors.items()
    }


def widen(parts: Parts, *names: str) -> None:
    for name in names:
        parts.tensors[name] = parts.tensors[name].as_kind(F32_KIND)


def add_tokens(parts: Parts, count: int) -> None:
    """More tokens than the embeddings have rows."""
    for key, value in (("tokens", ""), ("token_type", 4), ("scores", -1.0)):
        if (found := parts.keys.get(f"tokenizer.ggml.{key}")) is not None:
            old = found[1]
            added = [f"[PAD{number}]" for number in range(count)] if key == "tokens" else [value] * count
            parts.keys[f"tokenizer.ggml.{key}"] = (9, ArrayOf(old.kind, [*old.elements, *added]))


def take_vision_keys(published: Parts, tower: Parts, architecture: str, *, leave: tuple[str, ...] = ()) -> None:
    """The encoder's numbers as the model's file has them, under its architecture."""
    unwanted = ("projection_dim", "image_mean", "image_std", *leave)
    for key, value in tower.keys.items():
        name = key.removeprefix("clip.vision.")
        if key.startswith("clip.vision.") and name not in unwanted:
            published.keys[f"{architecture}.vision.{name}"] = value


def repeat_blocks(parts: Parts, count: int) -> None:
    """As many blocks, of the first two in turn."""
    for number in range(LAYERS, count):
        begin = f"blk.{number % LAYERS}."
        parts.tensors |= {
            f"blk.{number}.{name.removeprefix(begin)}": tensor
            for name, tensor in parts.tensors.items()
            if name.startswith(begin)
        }


def decoder(folder: Path, architecture: str) -> Parts:
    """A `tiny_llama` under another architecture, its matrices in F16."""
    parts = Parts.of(tiny_llama(folder / "llama.gguf", outtype="f32"))
    parts.rename_prefix("llama.", f"{architecture}.")
    parts.put(general__architecture=architecture)
    halved(parts)
    return parts


def random_tensor(seed: int, *shape: int, kind: GGMLQuantizationType = F16, centre: float = 0.0) -> Stored:
    """Of a shape in NumPy's order."""
    return stored(np.random.default_rng(seed).normal(centre, 0.3, shape), kind)


MOE = {"expert_count": 4, "expert_used_count": 2}
MXFP4 = GGMLQuantizationType.MXFP4


def vision(kind: str, **numbers: Any) -> Parts:
    """The keys of a projector for pictures of 56×56: width 48, two blocks, four heads."""
    parts = Parts({})
    parts.put(general__architecture="clip", general__type="mmproj")
    parts.put(clip__has_vision_encoder=True, clip__projector_type=kind)
    usual = {"block_count": 2, "embedding_length": 48, "feed_forward_length": 96, "attention__head_count": 4}
    usual |= {"patch_size": 14, "image_size": 56, "projection_dim": 64}
    parts.put(**{f"clip__vision__{name}": value for name, value in (usual | numbers).items()})
    return parts


def tower_blocks(parts: Parts, linear: Mapping[str, tuple[int, int]], norms: tuple[str, ...], *, bias: bool) -> None:
    """Two blocks of random weights; `linear` has (rows, row length), norms have 48 numbers."""
    for layer in range(2):
        for number, (name, shape) in enumerate(linear.items()):
            parts.tensors[f"v.blk.{layer}.{name}.weight"] = random_tensor(20 * layer + number, *shape)
            if bias:
                seed = 50 * layer + number
                parts.tensors[f"v.blk.{layer}.{name}.bias"] = random_tensor(seed, shape[0], kind=F32_KIND)
        for number, name in enumerate(norms):
            seed = 70 * layer + number
            parts.tensors[f"v.blk.{layer}.{name}.weight"] = random_tensor(seed, 48, kind=F32_KIND, centre=1)
            if bias and name.startswith("ln") and "only weights" not in norms:
                parts.tensors[f"v.blk.{layer}.{name}.bias"] = random_tensor(seed + 9, 48, kind=F32_KIND)


ATTENTION = {"attn_q": (48, 48), "attn_k": (48, 48), "attn_v": (48, 48), "attn_out": (48, 48)}
GATED = {"ffn_gate": (96, 48), "ffn_up": (96, 48), "ffn_down": (48, 96)}
