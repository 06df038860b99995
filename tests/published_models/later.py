"""Twins of Qwen 3 VL, Qwen 3.5, Gemma 3n, Llama 4 and families of which only names change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.gguf_bytes import F32, I32, STRING, ArrayOf
from tests.published_models.building import (
    ATTENTION,
    F16,
    F32_KIND,
    MOE,
    Twins,
    add_tokens,
    decoder,
    random_tensor,
    repeat_blocks,
    take_vision_keys,
    tower_blocks,
    vision,
    widen,
)
from tests.published_models.parts import Parts, replaced, stored
from tests.tiny_models import LAYERS

Q8_0 = 8


def _with_norms(parts: Parts) -> None:
    """Norms of queries and keys, by head."""
    for layer in range(LAYERS):
        for part in ("attn_q_norm", "attn_k_norm"):
            parts.tensors[f"blk.{layer}.{part}.weight"] = random_tensor(layer, 32, kind=F32_KIND, centre=1)


def _with_experts(parts: Parts, architecture: str, *, shared: bool = False) -> None:
    """Four experts of 96 instead of a feed-forward, two of them used."""
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("gate", "up", "down"):
            parts.tensors.pop(f"{block}.ffn_{part}.weight", None)
        parts.tensors[f"{block}.ffn_gate_inp.weight"] = random_tensor(layer, 4, 64, kind=F32_KIND)
        for number, (part, shape) in enumerate((("gate", (4, 96, 64)), ("up", (4, 96, 64)), ("down", (4, 64, 96)))):
            parts.tensors[f"{block}.ffn_{part}_exps.weight"] = random_tensor(9 * layer + number, *shape)
            if shared:
                parts.tensors[f"{block}.ffn_{part}_shexp.weight"] = random_tensor(8 * layer + number, *shape[1:])
    numbers = {**MOE, "expert_feed_forward_length": 96}
    parts.put(**{f"{architecture}__{key}": value for key, value in numbers.items()})


def _qwen_tower(deepstack: list[int]) -> tuple[Parts, Parts]:
    """The encoder in the engine's layout, and its tensors as they are published."""
    tower = vision("qwen3vl_merger", spatial_merge_size=2)
    tower.put(clip__use_gelu=True, clip__vision__attention__layer_norm_epsilon=1e-5)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999747378752e-06)
    tower.put(clip__vision__image_mean=[0.5] * 3, clip__vision__image_std=[0.5] * 3)
    tower_blocks(tower, {**ATTENTION, "ffn_up": (96, 48), "ffn_down": (48, 96)}, ("ln1", "ln2"), bias=True)
    tower.tensors["v.position_embd.weight"] = random_tensor(3, 16, 48)
    tower.tensors["v.patch_embd.bias"] = random_tensor(4, 48, kind=F32_KIND)
    for end, centre in (("weight", 1.0), ("bias", 0.0)):
        tower.tensors[f"v.post_ln.{end}"] = random_tensor(5, 48, kind=F32_KIND, centre=centre)
    for number, (name, rows) in enumerate((("mm.0", 192), ("mm.2", 64))):
        tower.tensors[f"{name}.weight"] = random_tensor(6 + number, rows, 192)
        tower.tensors[f"{name}.bias"] = random_tensor(8 + number, rows, kind=F32_KIND)
    for number in deepstack:
        for end, centre in (("weight", 1.0), ("bias", 0.0)):
            tower.tensors[f"v.deepstack.{number}.norm.{end}"] = random_tensor(9, 192, kind=F32_KIND, centre=centre)
        for name, rows in (("fc1", 192), ("fc2", 64)):
            tower.tensors[f"v.deepstack.{number}.{name}.weight"] = random_tensor(11, rows, 192)
            tower.tensors[f"v.deepstack.{number}.{name}.bias"] = random_tensor(12, rows, kind=F32_KIND)
    published = tower.copy()
    names = {f"v.deepstack.{number}.": f"v.deepstack_merger.{at}." for at, number in enumerate(deepstack)}
    published.rename(replaced(names))
    published.rename(
        replaced(
            {
                ".ln1": ".norm1",
                ".ln2": ".norm2",
                ".ffn_up": ".mlp.linear_fc1",
                ".ffn_down": ".mlp.linear_fc2",
                "v.post_ln": "v.merger.norm",
                "mm.0": "v.merger.linear_fc1",
                "mm.2": "v.merger.linear_fc2",
                "v.position_embd": "v.pos_embed",
                "v.patch_embd": "v.patch_embed",
                ".fc1": ".linear_fc1",
                ".fc2": ".linear_fc2",
            }
        )
    )
    packed = np.random.default_rng(2).normal(0, 0.3, (144, 2, 14, 14))
    published.tensors["v.patch_embed.weight"] = stored(packed, F16)
    whole = published.tensors["v.patch_embed.weight"].numbers()
    for time, name in enumerate(("v.patch_embd.weight", "v.patch_embd.weight.1")):
        # Output channel c and colour r are row 3c+r of the packed tensor.
        convolution = np.stack([whole[3 * channel : 3 * channel + 3, time] for channel in range(48)])
        tower.tensors[name] = stored(convolution)
    return tower, published


def _join_attention(tower: Parts) -> None:
    for layer in range(2):
        for end in ("weight", "bias"):
            found = [tower.tensors.pop(f"v.blk.{layer}.attn_{part}.{end}") for part in "qkv"]
            one_kind = found[0].kind == found[2].kind
            rows = np.concatenate([tensor.numbers() for tensor in found])
            tower.tensors[f"v.blk.{layer}.attn_qkv.{end}"] = stored(
                rows, F16 if one_kind and end == "weight" else F32_KIND
            )


def _qwen3vl(folder: Path, architecture: str) -> Twins:
    """Values of another type than queries and keys in the second block, whose state goes to the model as well."""
    text = decoder(folder, architecture)
    _with_norms(text)
    if architecture == "qwen3vlmoe":
        _with_experts(text, architecture)
    text.put(**{f"{architecture}__rope__dimension_sections": [6, 5, 5, 0], f"{architecture}__n_deepstack_layers": 1})
    model = text.write(folder / "model.gguf")
    tower, as_published = _qwen_tower([1])
    values = "v.blk.1.attn_v.weight"
    tower.tensors[values] = as_published.tensors[values] = random_tensor(77, 48, 48, kind=F32_KIND)
    tower.put(clip__vision__is_deepstack_layers=[False, True])
    tower.put(clip__vision__image_min_pixels=1000, clip__vision__image_max_pixels=16777216)
    published = text.copy()
    published.drop(f"{architecture}.rope.dimension_sections", f"{architecture}.n_deepstack_layers")
    published.put(**{f"{architecture}__rope__mrope_section": [6, 5, 5]})
    published.put(**{f"{architecture}__rope__scaling__type": "mrope"})
    leave = ("feed_forward_length", "image_size", "image_min_pixels", "image_max_pixels", "is_deepstack_layers")
    take_vision_keys(published, tower, architecture, leave=leave)
    published.put(**{f"{architecture}__vision__deepstack_visual_indexes": [1]})
    published.put(**{f"{architecture}__vision__shortest_edge": 1000})
    published.tensors |= as_published.tensors
    _join_attention(tower)
    widen(tower, "v.position_embd.weight")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def qwen3vl(folder: Path) -> Twins:
    return _qwen3vl(folder, "qwen3vl")


def qwen3vlmoe(folder: Path) -> Twins:
    return _qwen3vl(folder, "qwen3vlmoe")


_RECURRENT: dict[str, Any] = {
    "block_count": 4,
    "full_attention_interval": 4,
    "attention__key_length": 32,
    "attention__value_length": 32,
    "ssm__conv_kernel": 4,
    "ssm__state_size": 16,
    "ssm__group_count": 2,
    "ssm__time_step_rank": 4,
    "ssm__inner_size": 64,
}
"""The numbers of four blocks, of which the last attends and the others are recurrent."""


def _make_recurrent(text: Parts, linear: dict[str, tuple[int, int]]) -> None:
    """Gives the first three blocks the matrices of recurrent ones, and the fourth a gate beside its queries."""
    for layer in range(3):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            del text.tensors[f"blk.{layer}.{part}.weight"]
        for number, (name, shape) in enumerate(linear.items()):
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(9 * layer + number, *shape)
        text.tensors[f"blk.{layer}.ssm_conv1d.weight"] = random_tensor(layer, 128, 4, kind=F32_KIND)
        text.tensors[f"blk.{layer}.ssm_dt.bias"] = random_tensor(layer, 4, kind=F32_KIND)
        text.tensors[f"blk.{layer}.ssm_a"] = random_tensor(layer, 4, kind=F32_KIND, centre=-2)
        text.tensors[f"blk.{layer}.ssm_norm.weight"] = random_tensor(layer, 16, kind=F32_KIND, centre=1)
    text.tensors["blk.3.attn_q.weight"] = random_tensor(1, 128, 64)
    for part in ("attn_q_norm", "attn_k_norm"):
        text.tensors[f"blk.3.{part}.weight"] = random_tensor(7, 32, kind=F32_KIND, centre=1)


def _qwen35(folder: Path, architecture: str) -> Twins:
    """Four blocks, of which the last attends and the others are recurrent."""
    text = decoder(folder, architecture)
    if architecture == "qwen35moe":
        _with_experts(text, architecture, shared=True)
        text.put(**{f"{architecture}__expert_shared_feed_forward_length": 96})
        for layer in range(LAYERS):
            text.tensors[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = random_tensor(layer, 64, kind=F32_KIND)
    text.rename(replaced({"ffn_norm": "post_attention_norm"}))
    repeat_blocks(text, 4)
    linear = {"attn_qkv": (128, 64), "attn_gate": (64, 64), "ssm_out": (64, 64)}
    _make_recurrent(text, {**linear, "ssm_beta": (4, 64), "ssm_alpha": (4, 64)})
    numbers = {**_RECURRENT, "attention__head_count_kv": 1, "rope__dimension_sections": [6, 5, 5, 0]}
    text.put(**{f"{architecture}__{name}": value for name, value in numbers.items()})
    model = text.write(folder / "model.gguf")
    tower, as_published = _qwen_tower([])
    published = text.copy()
    published.put(**{f"{architecture}__rope__dimension_sections": [6, 5, 5]})
    published.put(**{f"{architecture}__attention__head_count_kv": [0, 0, 0, 1]})
    published.rename(replaced({"ssm_dt.bias": "ssm_dt"}))
    published.tensors["mtp.fc.weight"] = random_tensor(1, 64, 128)
    take_vision_keys(published, tower, architecture, leave=("feed_forward_length", "image_size"))
    published.tensors |= as_published.tensors
    _join_attention(tower)
    widen(tower, "v.position_embd.weight")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def qwen35(folder: Path) -> Twins:
    return _qwen35(folder, "qwen35")


def qwen35moe(folder: Path) -> Twins:
    return _qwen35(folder, "qwen35moe")


def llama4(folder: Path) -> Twins:
    text = decoder(folder, "llama4")
    _with_experts(text, "llama4", shared=True)
    repeat_blocks(text, 4)  # the fourth has no rope: without such a block the engine ends its process
    text.put(llama4__interleave_moe_layer_step=1, llama4__expert_used_count=1, llama4__block_count=4)
    model = text.write(folder / "model.gguf")
    tower = vision("llama4", projector__scale_factor=2)
    tower.put(clip__vision__projector_type="llama4", clip__use_gelu=True)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999747378752e-06)
    tower.put(clip__vision__image_mean=[0.5] * 3, clip__vision__image_std=[0.5] * 3)
    tower_blocks(tower, {**ATTENTION, "ffn_up": (96, 48), "ffn_down": (48, 96)}, ("ln1", "ln2"), bias=True)
    tower.tensors["v.patch_embd.weight"] = random_tensor(1, 48, 588)
    tower.tensors["v.class_embd"] = random_tensor(2, 48, kind=F32_KIND)
    tower.tensors["v.position_embd.weight"] = random_tensor(3, 17, 48, kind=F32_KIND)
    for name in ("pre_ln", "post_ln"):
        for end, centre in (("weight", 1.0), ("bias", 0.0)):
            tower.tensors[f"v.{name}.{end}"] = random_tensor(4, 48, kind=F32_KIND, centre=centre)
    for name, shape in (("mlp.1", (128, 192)), ("mlp.2", (128, 128)), ("fc", (64, 128))):
        tower.tensors[f"mm.model.{name}.weight"] = random_tensor(5, *shape)
    published = text.copy()
    take_vision_keys(
        published, tower, "llama4", leave=("projector.scale_factor", "projector_type", "attention.layer_norm_epsilon")
    )
    published.put(llama4__vision__layer_norm_epsilon=9.999999747378752e-06, llama4__vision__pixel_shuffle_ratio=0.5)
    as_published = tower.copy()
    as_published.rename(
        replaced(
            {
                "v.position_embd.weight": "v.positional_embedding_vlm",
                "v.class_embd": "v.class_embedding",
                "v.pre_ln": "v.layernorm_pre",
                "v.post_ln": "v.layernorm_post",
                "v.patch_embd": "v.patch_embedding",
                ".ln1": ".attn_norm",
                ".ln2": ".ffn_norm",
                ".attn_out": ".attn_output",
                ".ffn_up": ".mlp.fc1",
                ".ffn_down": ".mlp.fc2",
                "mm.model.mlp.1": "v.vision_adapter.mlp.fc1",
                "mm.model.mlp.2": "v.vision_adapter.mlp.fc2",
                "mm.model.fc": "mm.linear_1",
            }
        )
    )
    published.tensors |= as_published.tensors
    widen(tower, "v.patch_embd.weight")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def gemma3n(folder: Path) -> Twins:
    """A vocabulary of pieces with bytes and unused tokens, of which the last are dropped with their rows."""
    text = decoder(folder, "gemma3n")
    words = ["<unk>", "<s>", "</s>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "<unused1>"]
    tokens = [*words, *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(97, 123)), "▁", "▁the", "▁hello"]
    kinds = [2, 3, 3, 3, 3, 3, 1, 1, *[6] * 256, *[1] * (len(tokens) - 264)]
    rows, layers, inner = len(tokens), 5, 256
    text.drop("tokenizer.ggml.merges", "tokenizer.ggml.pre", "tokenizer.ggml.padding_token_id")
    text.put(tokenizer__ggml__model="llama", tokenizer__ggml__bos_token_id=1, tokenizer__ggml__eos_token_id=2)
    text.put(tokenizer__ggml__unknown_token_id=0, gemma3n__vocab_size=rows)
    text.keys["tokenizer.ggml.tokens"] = (9, ArrayOf(STRING, tokens))
    text.keys["tokenizer.ggml.token_type"] = (9, ArrayOf(I32, kinds))
    text.keys["tokenizer.ggml.scores"] = (9, ArrayOf(F32, [-float(number) for number in range(rows)]))
    repeat_blocks(text, layers)
    all_rows = random_tensor(1, rows + 8, 64).numbers()
    text.tensors["token_embd.weight"] = stored(all_rows[:rows], F16)
    del text.tensors["output.weight"]
    whole = {
        "per_layer_token_embd": (rows, inner * layers),
        "altup_proj": (3, 64, 64),
        "altup_unembd_proj": (3, 64, 64),
    }
    whole |= {"per_layer_model_proj": (inner * layers, 64)}
    for number, (name, shape) in enumerate(whole.items()):
        text.tensors[f"{name}.weight"] = random_tensor(40 + number, *shape)
    text.tensors["per_layer_proj_norm.weight"] = random_tensor(2, inner, kind=F32_KIND, centre=1)
    norms = {"attn_q_norm": 32, "attn_k_norm": 32, "post_attention_norm": 64, "post_ffw_norm": 64, "post_norm": 64}
    norms |= {"altup_correct_scale": 64, "altup_router_norm": 64, "laurel_post_norm": 64}
    linear = {"inp_gate": (inner, 64), "proj": (64, inner), "altup_router": (4, 64), "laurel_l": (64, 64)}
    linear |= {"laurel_r": (64, 64), "altup_correct_coef": (4, 4), "altup_predict_coef": (16, 4)}
    for layer in range(layers):
        for number, (name, width) in enumerate(norms.items()):
            seed = 60 * layer + number
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(seed, width, kind=F32_KIND, centre=1)
        for number, (name, shape) in enumerate(linear.items()):
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(90 * layer + number, *shape, kind=F32_KIND)
    numbers: dict[str, Any] = {"block_count": layers, "attention__key_length": 32, "attention__value_length": 32}
    numbers |= {"attention__sliding_window": 64, "attention__shared_kv_layers": 0}
    text.put(**{f"gemma3n__{name}": value for name, value in numbers.items()})
    model = text.write(folder / "model.gguf")
    published = text.copy()
    add_tokens(published, 8)
    changed = [1 if kind == 6 else 5 if tokens[at].startswith("<unused") else kind for at, kind in enumerate(kinds)]
    published.keys["tokenizer.ggml.token_type"] = (9, ArrayOf(I32, [*changed, *[4] * 8]))
    published.put(tokenizer__ggml__model="gemma3n")
    published.tensors["token_embd.weight"] = stored(all_rows, F16)
    return Twins(model, published.write(folder / "published.gguf"))


def olmo3(folder: Path) -> Twins:
    text = decoder(folder, "olmo2")
    for layer in range(LAYERS):
        del text.tensors[f"blk.{layer}.attn_norm.weight"]
        del text.tensors[f"blk.{layer}.ffn_norm.weight"]
        norms = {"attn_q_norm": 64, "attn_k_norm": 32, "post_attention_norm": 64, "post_ffw_norm": 64}
        for number, (name, width) in enumerate(norms.items()):
            seed = 60 * layer + number
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(seed, width, kind=F32_KIND, centre=1)
    model = text.write(folder / "model.gguf")
    text.rename_prefix("olmo2.", "olmo3.")
    text.put(general__architecture="olmo3")
    return Twins(model, text.write(folder / "published.gguf"))


def lfm2(folder: Path) -> Twins:
    """The first block convolves, the second attends."""
    text = decoder(folder, "lfm2")
    _with_norms(text)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm"):
        del text.tensors[f"blk.0.{part}.weight"]
    for name, shape in (("conv", (64, 3)), ("in_proj", (192, 64)), ("out_proj", (64, 64))):
        kind = F32_KIND if name == "conv" else F16
        text.tensors[f"blk.0.shortconv.{name}.weight"] = random_tensor(3, *shape, kind=kind)
    text.tensors["token_embd_norm.weight"] = text.tensors.pop("output_norm.weight")
    text.put(lfm2__shortconv__l_cache=3, lfm2__attention__head_count_kv=[0, 1], tokenizer__ggml__pre="lfm2")
    model = text.write(folder / "model.gguf")
    text.tensors["output_norm.weight"] = text.tensors.pop("token_embd_norm.weight")
    text.put(lfm2__feed_forward_length=192, tokenizer__ggml__pre="default")
    return Twins(model, text.write(folder / "published.gguf"))


def glm4moelite(folder: Path) -> Twins:
    """Attention to a latent vector of 32 and a rotated part of 16; both blocks are dense."""
    text = decoder(folder, "deepseek2")
    shapes: dict[str, tuple[int, ...]] = {"attn_q_a": (32, 64), "attn_q_b": (2 * 48, 32), "attn_kv_a_mqa": (48, 64)}
    shapes |= {"attn_k_b": (2, 32, 32), "attn_v_b": (2, 24, 32), "attn_output": (64, 48)}
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v"):
            del text.tensors[f"blk.{layer}.{part}.weight"]
        for number, (name, shape) in enumerate(shapes.items()):
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(9 * layer + number, *shape)
        for name in ("attn_q_a_norm", "attn_kv_a_norm"):
            text.tensors[f"blk.{layer}.{name}.weight"] = random_tensor(layer, 32, kind=F32_KIND, centre=1)
    numbers: dict[str, Any] = {"leading_dense_block_count": 2, "expert_count": 4, "expert_used_count": 2}
    numbers |= {"attention__q_lora_rank": 32, "attention__kv_lora_rank": 32, "rope__dimension_count": 16}
    numbers |= {"expert_feed_forward_length": 96, "expert_shared_count": 1, "expert_weights_scale": 1.5}
    numbers |= {"expert_gating_func": 2}
    published = text.copy()
    latent: dict[str, Any] = {"attention__head_count_kv": 1, "attention__key_length": 48, "attention__value_length": 32}
    latent |= {"attention__key_length_mla": 48, "attention__value_length_mla": 24}
    latent |= {"expert_group_count": 1, "expert_group_used_count": 1}
    text.put(**{f"deepseek2__{name}": value for name, value in (numbers | latent).items()})
    text.put(tokenizer__ggml__pre="glm4", tokenizer__ggml__eot_token_id=1, tokenizer__ggml__eom_token_id=5)
    model = text.write(folder / "model.gguf")
    published.rename_prefix("deepseek2.", "glm4moelite.")
    numbers |= {"attention__key_length": 48, "attention__value_length": 24, "attention__head_count_kv": 2}
    published.put(**{f"glm4moelite__{name}": value for name, value in numbers.items()})
    published.put(general__architecture="glm4moelite", tokenizer__ggml__eos_token_ids=[2, 1, 5])
    return Twins(model, published.write(folder / "published.gguf"))


def qwen3next(folder: Path) -> Twins:
    """As Qwen 3.5, with experts and without pictures."""
    text = decoder(folder, "qwen3next")
    _with_experts(text, "qwen3next", shared=True)
    text.put(qwen3next__expert_shared_feed_forward_length=96)
    for layer in range(LAYERS):
        text.tensors[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = random_tensor(layer, 64, kind=F32_KIND)
    text.rename(replaced({"ffn_norm": "post_attention_norm"}))
    repeat_blocks(text, 4)
    _make_recurrent(text, {"ssm_in": (192, 64), "ssm_out": (64, 64), "ssm_ba": (8, 64)})
    numbers = {**_RECURRENT, "attention__head_count_kv": 1}
    text.put(**{f"qwen3next__{name}": value for name, value in numbers.items()})
    model = text.write(folder / "model.gguf")
    text.put(qwen3next__attention__head_count_kv=[0, 0, 0, 1])
    text.rename(replaced({"ssm_dt.bias": "ssm_dt"}))
    return Twins(model, text.write(folder / "published.gguf"))


LATER: dict[str, Callable[[Path], Twins]] = {
    "qwen3vl": qwen3vl,
    "qwen3vlmoe": qwen3vlmoe,
    "qwen35": qwen35,
    "qwen35moe": qwen35moe,
    "llama4": llama4,
    "gemma3n": gemma3n,
    "olmo3": olmo3,
    "lfm2": lfm2,
    "glm4moelite": glm4moelite,
    "qwen3next": qwen3next,
}
