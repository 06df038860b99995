"""Twins of families that read the text in pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.gguf_bytes import F32
from tests.published_models.building import (
    ATTENTION,
    F16,
    F32_KIND,
    GATED,
    MOE,
    Twins,
    decoder,
    random_tensor,
    take_vision_keys,
    tower_blocks,
    vision,
    widen,
)
from tests.published_models.parts import Parts, replaced, stored
from tests.tiny_models import LAYERS


def deepseekocr(folder: Path) -> Twins:
    """The first block is dense, the second has four experts and two that are always used."""
    text = decoder(folder, "deepseek2-ocr")
    for layer in range(LAYERS):
        for part in ("attn_k", "attn_v"):
            text.tensors[f"blk.{layer}.{part}.weight"] = random_tensor(7 * layer + len(part), 64, 64)
    for part in ("gate", "up", "down"):
        del text.tensors[f"blk.1.ffn_{part}.weight"]
    text.tensors["blk.1.ffn_gate_inp.weight"] = random_tensor(1, 4, 64, kind=F32_KIND)
    for number, (part, shape) in enumerate((("gate", (96, 64)), ("up", (96, 64)), ("down", (64, 96)))):
        text.tensors[f"blk.1.ffn_{part}_exps.weight"] = random_tensor(number, 4, *shape)
        both = tuple(2 * size if size == 96 else size for size in shape)
        text.tensors[f"blk.1.ffn_{part}_shexp.weight"] = random_tensor(5 + number, *both)
    numbers: dict[str, Any] = {**MOE, "leading_dense_block_count": 1, "expert_feed_forward_length": 96}
    numbers |= {"expert_shared_count": 2, "attention__head_count_kv": 2}
    text.put(**{f"deepseek2-ocr__{name}": value for name, value in numbers.items()})
    text.keys["deepseek2-ocr.attention.layer_norm_rms_epsilon"] = (F32, 9.999999974752427e-07)
    model = text.write(folder / "model.gguf")
    published = text.copy()
    published.rename_prefix("deepseek2-ocr.", "deepseekocr.")
    published.put(general__architecture="deepseekocr")
    derived = ("attention.layer_norm_rms_epsilon", "expert_feed_forward_length", "expert_shared_count")
    published.drop(*(f"deepseekocr.{name}" for name in derived))
    tower = _two_towers()
    copied = ("block_count", "embedding_length", "image_size", "patch_size")
    published.put(**{f"deepseekocr__vision__{name}": tower.keys[f"clip.vision.{name}"][1] for name in copied})
    published.put(deepseekocr__vision__head_count=4)
    for name in ("block_count", "embedding_length", "head_count"):
        published.keys[f"deepseekocr.sam.{name}"] = tower.keys[f"clip.vision.sam.{name}"]
    as_published = tower.copy()
    as_published.rename(_name_in_deepseekocr)
    published.tensors |= as_published.tensors
    wide = ("patch_embd.weight", "position_embd.weight", "pos_embd.weight", "pos_h.weight", "pos_w.weight")
    widen(tower, *(name for name in tower.tensors if name.endswith(wide)))
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def _name_in_deepseekocr(name: str) -> str:
    whole = {"v.image_newline": "mm.image_newline", "v.view_seperator": "mm.view_seperator"}
    whole["v.sam.pos_embd.weight"] = "s.position_embd"
    if name in whole:
        return whole[name]
    parts = {".pos_h.weight": ".rel_pos_h", ".pos_w.weight": ".rel_pos_w", ".attn.out": ".attn.proj"}
    parts |= {".pre_ln": ".norm1", ".post_ln": ".norm2"}
    if name.startswith("v.sam."):
        return "s." + replaced(parts)(name.removeprefix("v.sam."))
    parts = {"v.pre_ln": "v.pre_layrnorm", ".attn_qkv": ".self_attn.qkv_proj", ".attn_out": ".self_attn.out_proj"}
    parts |= {".ln1": ".layer_norm1", ".ln2": ".layer_norm2", ".ffn_up": ".mlp.fc1", ".ffn_down": ".mlp.fc2"}
    return replaced(parts | {"mm.model.fc": "mm.layers"})(name)


def _two_towers() -> Parts:
    """The second reads what the first made of 1024×1024: 16×16 places, each of 48 numbers."""
    tower = vision("deepseekocr", image_size=224, feed_forward_length=64, projection_dim=1280, window_size=14)
    tower.put(clip__use_gelu=True, clip__vision__projector__scale_factor=1)
    tower.put(clip__vision__sam__block_count=3, clip__vision__sam__embedding_length=16)
    tower.put(clip__vision__sam__head_count=1)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999974752427e-07)
    tower.put(clip__vision__image_mean=[0.5] * 3, clip__vision__image_std=[0.5] * 3)
    _add_linear(tower, "v.sam.patch_embd", 1, 16, 3, 16, 16)
    tower.tensors["v.sam.pos_embd.weight"] = random_tensor(2, 1, 64, 64, 16)
    for layer in range(3):
        block = f"v.sam.blk.{layer}"
        linear = {"attn.qkv": (48, 16), "attn.out": (16, 16), "mlp.lin1": (24, 16), "mlp.lin2": (16, 24)}
        for number, (name, shape) in enumerate(linear.items()):
            _add_linear(tower, f"{block}.{name}", 10 * layer + number, *shape)
        for number, name in enumerate(("pre_ln", "post_ln")):
            _add_norm(tower, f"{block}.{name}", 30 + 2 * layer + number, 16)
        for number, name in enumerate(("pos_h", "pos_w")):
            rows = 127 if layer == 2 else 27  # the third block sees the whole picture: without it the engine ends
            tower.tensors[f"{block}.attn.{name}.weight"] = random_tensor(40 + 2 * layer + number, rows, 16)
    convolutions = {
        "neck.0": (24, 16, 1, 1),
        "neck.2": (24, 24, 3, 3),
        "net_2": (32, 24, 3, 3),
        "net_3": (48, 32, 3, 3),
    }
    for number, (name, size) in enumerate(convolutions.items()):
        tower.tensors[f"v.sam.{name}.weight"] = random_tensor(50 + number, *size)
    for name in ("neck.1", "neck.3"):
        _add_norm(tower, f"v.sam.{name}", len(name), 24)
    _add_norm(tower, "v.pre_ln", 60, 48)
    tower.tensors["v.class_embd"] = random_tensor(61, 48, kind=F32_KIND)
    tower.tensors["v.patch_embd.weight"] = random_tensor(62, 48, 3, 14, 14)
    tower.tensors["v.position_embd.weight"] = random_tensor(63, 257, 48)
    for layer in range(2):
        for number, (name, shape) in enumerate(_TOWER_LINEAR.items()):
            _add_linear(tower, f"v.blk.{layer}.{name}", 70 + 10 * layer + number, *shape)
        for number, name in enumerate(("ln1", "ln2")):
            _add_norm(tower, f"v.blk.{layer}.{name}", 90 + 2 * layer + number, 48)
    _add_linear(tower, "mm.model.fc", 95, 64, 96)
    for number, name in enumerate(("image_newline", "view_seperator")):
        tower.tensors[f"v.{name}"] = random_tensor(96 + number, 64, kind=F32_KIND)
    return tower


_TOWER_LINEAR = {"attn_qkv": (144, 48), "attn_out": (48, 48), "ffn_up": (96, 48), "ffn_down": (48, 96)}


def _add_linear(tower: Parts, name: str, seed: int, *shape: int) -> None:
    tower.tensors[f"{name}.weight"] = random_tensor(seed, *shape)
    tower.tensors[f"{name}.bias"] = random_tensor(seed + 200, shape[0], kind=F32_KIND)


def _add_norm(tower: Parts, name: str, seed: int, width: int) -> None:
    tower.tensors[f"{name}.weight"] = random_tensor(seed, width, kind=F32_KIND, centre=1)
    tower.tensors[f"{name}.bias"] = random_tensor(seed + 300, width, kind=F32_KIND)


def glmocr(folder: Path) -> Twins:
    text = decoder(folder, "glm4")
    for layer in range(LAYERS):
        for number, name in enumerate(("post_attention_norm", "post_ffw_norm")):
            seed = 60 * layer + number
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(seed, 64, kind=F32_KIND, centre=1)
    sections = {"rope__dimension_sections": [6, 5, 5, 0], "rope__dimension_count": 32, "attention__key_length": 32}
    text.put(**{f"glm4__{name}": value for name, value in (sections | {"attention__value_length": 32}).items()})
    text.put(tokenizer__ggml__pre="chatglm-bpe")
    published = text.copy()
    for layer in range(LAYERS):
        gate, up = (f"blk.{layer}.ffn_{part}.weight" for part in ("gate", "up"))
        both = np.concatenate([text.tensors[name].numbers() for name in (gate, up)])
        text.tensors[up] = stored(both, F16)
        del text.tensors[gate]
    model = text.write(folder / "model.gguf")
    published.rename_prefix("glm4.", "glmocr.")
    published.drop("glmocr.rope.dimension_sections", "glmocr.rope.dimension_count")
    published.put(general__architecture="glmocr", glmocr__rope__mrope_section=[6, 5, 5])
    published.put(tokenizer__ggml__pre="default")
    leaves = {"attn_output": "attn_out", "post_attention_norm": "post_attn_norm", "post_ffw_norm": "post_ffn_norm"}
    published.rename(replaced(leaves))
    tower = _merging_tower()
    leave = ("feed_forward_length", "attention.layer_norm_epsilon", "projection_dim")
    take_vision_keys(published, tower, "glmocr", leave=leave)
    published.put(glmocr__vision__intermediate_size=96, glmocr__vision__out_hidden_size=64)
    published.keys["glmocr.vision.attention.layer_norm_rms_epsilon"] = (F32, 9.999999747378752e-06)
    as_published = tower.copy()
    patches = {"v.patch_embd.weight.1": "v.patch_embd_1.weight", "v.patch_embd.weight": "v.patch_embd_0.weight"}
    as_published.rename(replaced(patches))
    published.tensors |= as_published.tensors
    widen(tower, *patches)
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def _merging_tower() -> Parts:
    tower = vision("glm4v", spatial_merge_size=2)
    tower.put(clip__use_silu=True)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999747378752e-06)
    tower.put(clip__vision__image_mean=[0.48145466, 0.4578275, 0.40821073])
    tower.put(clip__vision__image_std=[0.26862954, 0.26130258, 0.27577711])
    tower_blocks(tower, ATTENTION | GATED, (), bias=True)
    tower_blocks(tower, {}, ("ln1", "ln2"), bias=False)
    for number, name in enumerate(("v.patch_embd.weight", "v.patch_embd.weight.1")):
        tower.tensors[name] = random_tensor(number, 48, 3, 14, 14)
    tower.tensors["v.patch_embd.bias"] = random_tensor(3, 48, kind=F32_KIND)
    tower.tensors["v.post_ln.weight"] = random_tensor(5, 48, kind=F32_KIND, centre=1)
    for layer in range(2):
        for number, part in enumerate(("attn_q_norm", "attn_k_norm")):
            seed = 20 + 2 * layer + number
            tower.tensors[f"v.blk.{layer}.{part}.weight"] = random_tensor(seed, 12, kind=F32_KIND, centre=1)
    _add_linear(tower, "mm.patch_merger", 7, 80, 48, 2, 2)
    _add_norm(tower, "mm.post_norm", 8, 64)
    for number, (name, shape) in enumerate({"model.fc": (64, 80), "up": (96, 64), "gate": (96, 64)}.items()):
        tower.tensors[f"mm.{name}.weight"] = random_tensor(10 + number, *shape)
    tower.tensors["mm.down.weight"] = random_tensor(14, 64, 96)
    return tower
