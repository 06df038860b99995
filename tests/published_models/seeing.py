"""Twins of families that see pictures."""

from pathlib import Path

from tests.gguf_bytes import F32, I32, STRING, ArrayOf
from tests.published_models.building import (
    ATTENTION,
    F16,
    F32_KIND,
    GATED,
    Twins,
    add_tokens,
    decoder,
    halved,
    random_tensor,
    take_vision_keys,
    tower_blocks,
    vision,
    widen,
)
from tests.published_models.parts import Parts, replaced, stored
from tests.tiny_models import LAYERS, tiny_gemma3, tiny_llava


def llava(folder: Path) -> Twins:
    """A projector of its own file, with norms and positions in F16 as the first converters left them."""
    tiny_llava(folder / "model.gguf", folder / "tiny.gguf")
    parts = Parts.of(folder / "tiny.gguf")
    halved(parts)
    small = [name for name, tensor in parts.tensors.items() if len(tensor.shape) < 2]
    for name in small:
        parts.tensors[name] = parts.tensors[name].as_kind(F16)
    published = parts.copy()
    widen(parts, *small, "v.position_embd.weight")
    projector = parts.write(folder / "projector.gguf")
    published.drop("clip.projector_type")
    published.keys["clip.vision.block_count"] = (I32, published.keys["clip.vision.block_count"][1])
    return Twins(folder / "model.gguf", folder / "model.gguf", projector, published.write(folder / "published.gguf"))


def gemma3(folder: Path) -> Twins:
    """With an encoder of pictures, a few tokens too many, and old names throughout."""
    tiny_gemma3(folder / "tiny.gguf", folder / "tower.gguf")
    text, tower = Parts.of(folder / "tiny.gguf"), Parts.of(folder / "tower.gguf")
    halved(text)
    halved(tower)
    text.put(gemma3__rope__freq_base=500000.0, gemma3__rope__freq_base_swa=20000.0, gemma3__context_length=131072)
    text.put(gemma3__attention__layer_norm_rms_epsilon=9.999999974752427e-07)
    text.put(gemma3__rope__scaling__type="linear", gemma3__rope__scaling__factor=8.0)
    text.put(gemma3__rope__scaling__yarn_beta_fast=30.0)
    model = text.write(folder / "model.gguf")
    published = text.copy()
    published.drop("gemma3.rope.freq_base", "gemma3.rope.freq_base_swa", "gemma3.attention.layer_norm_rms_epsilon")
    published.drop("gemma3.rope.scaling.type", "gemma3.rope.scaling.factor", "gemma3.rope.scaling.yarn_beta_fast")
    published.put(gemma3__rope__global__freq_base=500000.0, gemma3__rope__local__freq_base=20000.0)
    published.put(gemma3__rope__scaling__beta_fast=30.0, gemma3__mm__tokens_per_image=4)
    add_tokens(published, 3)
    take_vision_keys(published, tower, "gemma3")
    tower.rename(
        replaced(
            {
                "v.patch_embd": "v.patch_embedding",
                "v.position_embd": "v.position_embedding",
                "v.post_ln": "v.post_layernorm",
                ".ln1": ".layer_norm1",
                ".ln2": ".layer_norm2",
                ".attn_out": ".attn_output",
                ".ffn_up": ".mlp.fc1",
                ".ffn_down": ".mlp.fc2",
                "mm.input_projection": "mm.mm_input_projection",
                "mm.soft_emb_norm": "mm.mm_soft_emb_norm",
            }
        )
    )
    published.tensors |= tower.tensors
    tower = Parts.of(folder / "tower.gguf")
    halved(tower)
    widen(tower, "v.patch_embd.weight", "v.position_embd.weight")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def qwen25vl(folder: Path) -> Twins:
    text = decoder(folder, "qwen2vl")
    for layer in range(LAYERS):
        for part, rows in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32)):
            text.tensors[f"blk.{layer}.{part}.bias"] = random_tensor(rows + layer, rows, kind=F32_KIND)
    text.put(qwen2vl__rope__dimension_sections=[4, 6, 6, 0])
    model = text.write(folder / "model.gguf")
    tower = vision("qwen2.5vl_merger", spatial_merge_size=2, window_size=112, n_wa_pattern=2)
    tower.put(clip__use_silu=True)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999974752427e-07)
    tower.put(clip__vision__image_mean=[0.48145466, 0.4578275, 0.40821073])
    tower.put(clip__vision__image_std=[0.26862954, 0.26130258, 0.27577711])
    for number, name in enumerate(("weight", "weight.1")):
        tower.tensors[f"v.patch_embd.{name}"] = random_tensor(number, 48, 3, 14, 14)
    tower_blocks(tower, ATTENTION | GATED, (), bias=True)
    tower_blocks(tower, {}, ("ln1", "ln2"), bias=False)
    tower.tensors["v.post_ln.weight"] = random_tensor(4, 48, kind=F32_KIND, centre=1)
    for name, shape in (("mm.0", (192, 192)), ("mm.2", (64, 192))):
        tower.tensors[f"{name}.weight"] = random_tensor(5, *shape)
        tower.tensors[f"{name}.bias"] = random_tensor(6, shape[0], kind=F32_KIND)
    published = text.copy()
    published.rename_prefix("qwen2vl.", "qwen25vl.")
    published.put(general__architecture="qwen25vl", qwen25vl__rope__mrope_section=[4, 6, 6])
    published.drop("qwen25vl.rope.dimension_sections")
    take_vision_keys(published, tower, "qwen25vl", leave=("n_wa_pattern", "feed_forward_length"))
    published.put(qwen25vl__vision__fullatt_block_indexes=[1])
    as_published = tower.copy()
    as_published.tensors["v.patch_embd_1.weight"] = as_published.tensors.pop("v.patch_embd.weight.1")
    as_published.rename(
        replaced(
            {
                "v.patch_embd.weight": "v.patch_embd_0.weight",
                "v.post_ln": "v.merger.ln_q",
                "mm.0": "v.merger.mlp.0",
                "mm.2": "v.merger.mlp.2",
            }
        )
    )
    published.tensors |= as_published.tensors
    widen(tower, "v.patch_embd.weight", "v.patch_embd.weight.1")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def mistral3(folder: Path) -> Twins:
    text = decoder(folder, "mistral3")
    tokens = text.keys["tokenizer.ggml.tokens"][1].elements
    number = tokens.index("world")
    text.keys["tokenizer.ggml.tokens"] = (9, ArrayOf(STRING, [*tokens[:number], "[IMG_BREAK]", *tokens[number + 1 :]]))
    merges = [merge for merge in text.keys["tokenizer.ggml.merges"][1].elements if merge.replace(" ", "") != "world"]
    text.keys["tokenizer.ggml.merges"] = (9, ArrayOf(STRING, merges))
    text.put(tokenizer__ggml__pre="tekken", mistral3__rope__scaling__type="yarn", mistral3__rope__scaling__factor=16.0)
    text.put(mistral3__rope__scaling__original_context_length=512, mistral3__rope__scaling__yarn_beta_fast=30.0)
    text.put(mistral3__rope__scaling__yarn_beta_slow=2.0, mistral3__rope__scaling__yarn_log_multiplier=1.5)
    text.put(mistral3__attention__temperature_scale=0.25)
    model = text.write(folder / "model.gguf")
    tower = vision("pixtral", spatial_merge_size=2)
    tower.put(clip__use_silu=True, clip__rope__freq_base=5000.0)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999747378752e-06)
    tower.put(clip__vision__image_mean=[0.48145467, 0.4578275, 0.40821072])
    tower.put(clip__vision__image_std=[0.26862955, 0.26130259, 0.2757771])
    tower.tensors["v.patch_embd.weight"] = random_tensor(0, 48, 3, 14, 14)
    tower.tensors["v.pre_ln.weight"] = random_tensor(1, 48, kind=F32_KIND, centre=1)
    tower_blocks(tower, ATTENTION | GATED, ("ln1", "ln2"), bias=False)
    for number, (name, shape) in enumerate((("mm.1", (64, 48)), ("mm.2", (64, 64)), ("mm.patch_merger", (48, 192)))):
        tower.tensors[f"{name}.weight"] = random_tensor(30 + number, *shape)
    tower.tensors["mm.input_norm.weight"] = random_tensor(4, 48, kind=F32_KIND, centre=1)
    published = text.copy()
    published.put(tokenizer__ggml__pre="default", mistral3__spatial_merge_size=2)
    for new, old in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        published.rename_prefix(f"mistral3.rope.scaling.{new}", f"mistral3.rope.scaling.{old}")
    published.rename_prefix("mistral3.rope.scaling.yarn_log_multiplier", "mistral3.rope.scaling.mscale_all_dim")
    published.rename_prefix("mistral3.attention.temperature_scale", "mistral3.rope.scaling_beta")
    take_vision_keys(published, tower, "mistral3", leave=("spatial_merge_size", "attention.layer_norm_epsilon"))
    published.put(mistral3__vision__rope__freq_base=5000.0)
    as_published = tower.copy()
    for name, tensor in tower.tensors.items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            # New row 2i+s of a head is old row s·d/2+i; here the other way.
            rows = tensor.numbers().reshape(4, 6, 2, 48).swapaxes(1, 2).reshape(48, 48)
            as_published.tensors[name] = stored(rows, F16)
    as_published.rename(
        replaced(
            {
                "v.patch_embd": "v.patch_conv",
                "v.pre_ln": "v.encoder_norm",
                ".ln1": ".attn_norm",
                ".ln2": ".ffn_norm",
                ".attn_out": ".attn_output",
                "mm.1": "mm.linear_1",
                "mm.2": "mm.linear_2",
                "mm.input_norm": "mm.norm",
                "mm.patch_merger": "mm.patch_merger.merging_layer",
            }
        )
    )
    published.tensors |= as_published.tensors
    widen(tower, "v.patch_embd.weight")
    row = text.tensors["token_embd.weight"].numbers()[tokens.index("world")]
    tower.tensors["v.token_embd.img_break"] = stored(row)
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))
