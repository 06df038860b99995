"""Gemma 4 with experts, embeddings by layer, and encoders of pictures and sounds: no size of it has them all."""

from pathlib import Path
from typing import Any

from tests.gguf_bytes import BOOL, F32, I32, STRING, ArrayOf
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
from tests.published_models.parts import Parts, stored
from tests.tiny_models import LAYERS

_WORDS = ("▁the", "▁hello", "▁world", "hello", "▁why", "▁sky")
_BY_LAYER = 16
_SPECIAL = 6
"""Tokens that are no text."""


def gemma4(folder: Path) -> Twins:
    text = _text(folder)
    model = text.write(folder / "model.gguf")
    published = text.copy()
    published.put(tokenizer__ggml__model="llama")
    for layer in range(LAYERS):
        scale = published.tensors.pop(f"blk.{layer}.ffn_down_exps.scale")
        published.tensors[f"blk.{layer}.ffn_gate_inp.per_expert_scale"] = scale
    tower = _pictures()
    take_vision_keys(published, tower, "gemma4", leave=("projector_type", "image_size"))
    _sounds(tower)
    numbers = {key: value for key, value in tower.keys.items() if key.startswith("clip.audio.")}
    for key, value in numbers.items():
        if not key.endswith(("projection_dim", "num_mel_bins", "projector_type")):
            published.keys[f"gemma4.audio.{key.removeprefix('clip.audio.')}"] = value
    as_published = tower.copy()
    as_published.rename(_published_name)
    published.tensors |= as_published.tensors
    published.tensors["v.clamp_data"] = random_tensor(9, 64, kind=F32_KIND)
    published.tensors["model.vision_tower.left_over"] = random_tensor(9, 8, kind=F32_KIND)
    convolutions = [name for name in tower.tensors if name.endswith(".conv_dw.weight")]
    widen(tower, "v.patch_embd.weight", "v.position_embd.weight", *convolutions)
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def _published_name(name: str) -> str:
    whole = {"a.input_projection.weight": "a.pre_encode.out.weight"}
    if name.startswith("a.pre_encode.out."):
        return name.replace("a.pre_encode.out", "mm.a.fc")
    if not name.startswith("a.blk."):
        return whole.get(name, name)
    leaves = {"attn_pre_norm": "ln1", "ln2": "layer_pre_norm", "attn_post_norm": "ln2", "attn_k_rel": "linear_pos"}
    block, _, leaf = name.removesuffix(".weight").rpartition(".")
    return f"{block}.{leaves.get(leaf, leaf)}.weight" if name.endswith(".weight") else name


def _text(folder: Path) -> Parts:
    text = decoder(folder, "gemma4")
    _vocabulary(text)
    rows = len(text.keys["tokenizer.ggml.tokens"][1].elements)
    for number, name in enumerate(("token_embd", "output")):
        numbers = random_tensor(30 + number, rows, 64).numbers()
        numbers[:_SPECIAL] = 0  # so that no answer ends early
        text.tensors[f"{name}.weight"] = stored(numbers, F16)
    text.tensors["per_layer_token_embd.weight"] = random_tensor(32, rows, _BY_LAYER * LAYERS)
    text.tensors["per_layer_model_proj.weight"] = random_tensor(33, _BY_LAYER * LAYERS, 64)
    text.tensors["per_layer_proj_norm.weight"] = random_tensor(34, _BY_LAYER, kind=F32_KIND, centre=1)
    text.tensors["rope_freqs.weight"] = random_tensor(35, 16, kind=F32_KIND, centre=2)
    norms = {"attn_q_norm": 32, "attn_k_norm": 32, "post_attention_norm": 64, "post_ffw_norm": 64, "post_norm": 64}
    norms |= {"pre_ffw_norm_2": 64, "post_ffw_norm_1": 64, "post_ffw_norm_2": 64, "layer_output_scale": 1}
    linear = {"ffn_gate_exps": (4, 96, 64), "ffn_up_exps": (4, 96, 64), "ffn_down_exps": (4, 64, 96)}
    by_layer = {"inp_gate": (_BY_LAYER, 64), "proj": (64, _BY_LAYER)}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for number, (name, width) in enumerate(norms.items()):
            seed = 60 * layer + number
            text.tensors[f"{block}.{name}.weight"] = random_tensor(seed, width, kind=F32_KIND, centre=1)
        for number, (name, shape) in enumerate((linear | by_layer).items()):
            text.tensors[f"{block}.{name}.weight"] = random_tensor(90 * layer + number, *shape)
        text.tensors[f"{block}.ffn_gate_inp.weight"] = random_tensor(layer, 4, 64, kind=F32_KIND)
        text.tensors[f"{block}.ffn_gate_inp.scale"] = random_tensor(layer + 3, 64, kind=F32_KIND, centre=1)
        text.tensors[f"{block}.ffn_down_exps.scale"] = random_tensor(layer + 5, 4, kind=F32_KIND, centre=1)
    settings: dict[str, Any] = {**MOE, "expert_feed_forward_length": 96, "embedding_length_per_layer_input": _BY_LAYER}
    for part in ("key_length", "value_length"):
        settings |= {f"attention__{part}": 32, f"attention__{part}_swa": 32}
    settings |= {"attention__sliding_window": 64, "attention__shared_kv_layers": 0}
    settings |= {"rope__dimension_count": 32, "rope__dimension_count_swa": 32, "vocab_size": rows}
    text.put(**{f"gemma4__{name}": value for name, value in settings.items()})
    text.keys["gemma4.attention.sliding_window_pattern"] = (9, ArrayOf(BOOL, [True, False]))
    return text


def _vocabulary(text: Parts) -> None:
    """Pieces with bytes, which merges are made of as well."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
    kinds = [3, 3, 3, 2, 3, 3]
    pieces = dict.fromkeys([chr(code) for code in range(32, 127)] + ["▁"])
    merges: dict[str, None] = {}
    for word in _WORDS:
        for end in range(2, len(word) + 1):
            pieces[word[:end]] = None
            merges[f"{word[: end - 1]} {word[end - 1]}"] = None
    tokens += [*(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds += [6] * 256 + [1] * len(pieces)
    text.drop("tokenizer.ggml.padding_token_id", "tokenizer.ggml.scores")
    text.put(tokenizer__ggml__model="gemma4", tokenizer__ggml__pre="gemma4")
    text.put(tokenizer__ggml__bos_token_id=2, tokenizer__ggml__eos_token_id=1, tokenizer__ggml__unknown_token_id=3)
    for name, kind, values in (("tokens", STRING, tokens), ("token_type", I32, kinds), ("merges", STRING, [*merges])):
        text.keys[f"tokenizer.ggml.{name}"] = (9, ArrayOf(kind, values))


def _pictures() -> Parts:
    tower = vision("gemma4v", image_size=224, projector__scale_factor=2)
    tower.drop("clip.projector_type")
    tower.put(clip__vision__projector_type="gemma4v")
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999974752427e-07)
    tower.put(clip__vision__image_mean=[0.0] * 3, clip__vision__image_std=[1.0] * 3)
    tower_blocks(tower, ATTENTION | GATED, ("ln1", "ln2", "attn_post_norm", "ffn_post_norm"), bias=False)
    for layer in range(2):
        for number, part in enumerate(("attn_q_norm", "attn_k_norm")):
            seed = 5 * layer + number
            tower.tensors[f"v.blk.{layer}.{part}.weight"] = random_tensor(seed, 12, kind=F32_KIND, centre=1)
        for number, bound in enumerate(("input_min", "input_max", "output_min", "output_max")):
            centre = -3 if bound.endswith("min") else 3
            tower.tensors[f"v.blk.{layer}.attn_q.{bound}"] = random_tensor(number, 1, kind=F32_KIND, centre=centre)
    tower.tensors["v.patch_embd.weight"] = random_tensor(1, 48, 3, 14, 14)
    tower.tensors["v.position_embd.weight"] = random_tensor(2, 2, 128, 48)
    tower.tensors["v.std_bias"] = random_tensor(3, 48, kind=F32_KIND)
    tower.tensors["v.std_scale"] = random_tensor(4, 48, kind=F32_KIND, centre=1)
    tower.tensors["mm.input_projection.weight"] = random_tensor(5, 64, 48)
    return tower


def _sounds(tower: Parts) -> None:
    tower.put(clip__has_audio_encoder=True, clip__audio__projector_type="gemma4a")
    numbers = {"block_count": 2, "embedding_length": 48, "feed_forward_length": 96, "attention__head_count": 4}
    numbers |= {"num_mel_bins": 128, "projection_dim": 64}
    tower.put(**{f"clip__audio__{name}": value for name, value in numbers.items()})
    tower.keys["clip.audio.attention.layer_norm_epsilon"] = (F32, 9.999999974752427e-07)
    whole: dict[str, tuple[int, ...]] = {"a.conv1d.0": (4, 1, 3, 3), "a.conv1d.1": (2, 4, 3, 3)}
    whole |= {"a.input_projection": (48, 64), "a.pre_encode.out": (56, 48), "mm.a.input_projection": (64, 56)}
    for number, (name, shape) in enumerate(whole.items()):
        tower.tensors[f"{name}.weight"] = random_tensor(110 + number, *shape)
    tower.tensors["a.pre_encode.out.bias"] = random_tensor(3, 56, kind=F32_KIND)
    for number, channels in enumerate((4, 2)):
        tower.tensors[f"a.conv1d.{number}.norm.weight"] = random_tensor(number, channels, kind=F32_KIND, centre=1)
    norms = ("attn_pre_norm", "attn_post_norm", "ln2", "ffn_norm", "ffn_norm_1", "ffn_post_norm", "ffn_post_norm_1")
    linear = {**ATTENTION, "attn_k_rel": (48, 48), "conv_pw1": (96, 48), "conv_pw2": (48, 48), "conv_dw": (48, 5)}
    linear |= {f"ffn_{part}{end}": GATED[f"ffn_{part}"] for part in ("up", "down") for end in ("", "_1")}
    for layer in range(2):
        for number, name in enumerate((*norms, "norm_conv", "conv_norm")):
            seed = 120 + 30 * layer + number
            tower.tensors[f"a.blk.{layer}.{name}.weight"] = random_tensor(seed, 48, kind=F32_KIND, centre=1)
        for number, (name, shape) in enumerate(linear.items()):
            tower.tensors[f"a.blk.{layer}.{name}.weight"] = random_tensor(190 + 30 * layer + number, *shape)
        tower.tensors[f"a.blk.{layer}.per_dim_scale.weight"] = random_tensor(layer, 12, kind=F32_KIND, centre=1)
