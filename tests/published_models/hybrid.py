"""Twins of Nemotron 3, whose blocks are each of another kind, and of Laguna and Arctic Embed 2."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from corral.convert.tokenizers import protobuf
from tests.gguf_bytes import F32, I32, STRING, U8, ArrayOf
from tests.published_models.building import (
    F32_KIND,
    MOE,
    Twins,
    decoder,
    random_tensor,
    take_vision_keys,
    tower_blocks,
    vision,
)
from tests.published_models.parts import Parts, replaced, stored
from tests.tiny_models import LAYERS, WIDTH, tiny_bert

_LATENT = 32


def _nemotron(folder: Path, *, has_experts: bool) -> Parts:
    """A block that is recurrent, one that attends and one with experts, or a feed-forward of two matrices."""
    architecture = "nemotron_h_moe" if has_experts else "nemotron_h"
    text = decoder(folder, architecture)
    attending = {name: tensor for name, tensor in text.tensors.items() if name.startswith("blk.1.attn_")}
    norm = text.tensors["blk.0.attn_norm.weight"]
    text.tensors = {name: tensor for name, tensor in text.tensors.items() if not name.startswith("blk.")} | attending
    text.tensors |= {f"blk.{layer}.attn_norm.weight": norm for layer in (0, 2)}
    plain = {"ssm_dt.bias": (4,), "ssm_conv1d.weight": (128, 4), "ssm_conv1d.bias": (128,), "ssm_d": (4, 1)}
    for number, (name, shape) in enumerate(plain.items()):
        text.tensors[f"blk.0.{name}"] = random_tensor(number, *shape, kind=F32_KIND)
    text.tensors["blk.0.ssm_a"] = random_tensor(5, 4, 1, kind=F32_KIND, centre=-2)
    text.tensors["blk.0.ssm_norm.weight"] = random_tensor(6, 2, 32, kind=F32_KIND, centre=1)
    linear: dict[str, tuple[int, ...]] = {"0.ssm_in": (196, 64), "0.ssm_out": (64, 64)}
    if has_experts:
        linear |= {"2.ffn_latent_down": (_LATENT, 64), "2.ffn_latent_up": (64, _LATENT)}
        linear |= {"2.ffn_up_exps": (4, 96, _LATENT), "2.ffn_down_exps": (4, _LATENT, 96)}
        linear |= {"2.ffn_up_shexp": (96, 64), "2.ffn_down_shexp": (64, 96)}
        text.tensors["blk.2.ffn_gate_inp.weight"] = random_tensor(8, 4, 64, kind=F32_KIND)
        text.tensors["blk.2.exp_probs_b.bias"] = random_tensor(9, 4, kind=F32_KIND)
    else:
        linear |= {"2.ffn_up": (96, 64), "2.ffn_down": (64, 96)}
    for number, (name, shape) in enumerate(linear.items()):
        text.tensors[f"blk.{name}.weight"] = random_tensor(20 + number, *shape)
    numbers: dict[str, Any] = {
        "block_count": 3,
        "feed_forward_length": [0, 0, 96],
        "attention__head_count_kv": [0, 1, 0],
    }
    numbers |= {"ssm__conv_kernel": 4, "ssm__state_size": 16, "ssm__group_count": 2, "ssm__time_step_rank": 4}
    numbers |= {"ssm__inner_size": 64, "attention__layer_norm_epsilon": 1e-5}
    if has_experts:
        numbers |= {**MOE, "expert_feed_forward_length": 96, "expert_shared_feed_forward_length": 96}
        numbers |= {"expert_shared_count": 1, "expert_weights_norm": True, "expert_weights_scale": 2.5}
        numbers |= {"moe_latent_size": _LATENT}
    text.put(**{f"{architecture}__{name}": value for name, value in numbers.items()})
    return text


def _as_published(text: Parts) -> Parts:
    published = text.copy()
    published.rename(replaced({"ffn_latent_down": "ffn_latent_in", "ffn_latent_up": "ffn_latent_out"}))
    published.drop("nemotron_h_moe.moe_latent_size")
    published.tensors["mtp.layers.0.eh_proj.weight"] = random_tensor(1, 64, 128)
    return published


def nemotron(folder: Path) -> Twins:
    """With experts that see a shorter vector."""
    text = _nemotron(folder, has_experts=True)
    model = text.write(folder / "model.gguf")
    return Twins(model, _as_published(text).write(folder / "published.gguf"))


def nemotron_omni(folder: Path) -> Twins:
    """Sees, with positions of another square than its pictures have, and hears, which is left out; without experts."""
    text = _nemotron(folder, has_experts=False)
    model = text.write(folder / "model.gguf")
    tower = vision("", patch_size=16, image_size=64, projector__scale_factor=2)
    tower.drop("clip.projector_type")
    tower.put(clip__vision__projector_type="nemotron_v2_vl", clip__has_audio_encoder=False, clip__use_gelu=True)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999974752427e-07)
    tower.put(clip__vision__image_mean=[0.48145466, 0.4578275, 0.40821073])
    tower.put(clip__vision__image_std=[0.26862954, 0.26130258, 0.27577711])
    linear = {"attn_qkv": (144, 48), "attn_out": (48, 48), "ffn_up": (96, 48), "ffn_down": (48, 96)}
    tower_blocks(tower, linear, ("ln1", "ln2"), bias=True)
    tower.tensors["v.class_embd"] = random_tensor(2, 3, 48, kind=F32_KIND)
    for number, (name, shape) in enumerate((("1", (96, 192)), ("3", (64, 96)))):
        tower.tensors[f"mm.model.mlp.{name}.weight"] = random_tensor(30 + number, *shape)
    tower.tensors["mm.model.mlp.0.weight"] = random_tensor(33, 192, kind=F32_KIND, centre=1)
    published = _as_published(text)
    published.rename_prefix("nemotron_h.", "nemotron_h_omni.")
    published.put(general__architecture="nemotron_h_omni", nemotron_h_omni__audio__block_count=2)
    take_vision_keys(published, tower, "nemotron_h_omni", leave=("projector_type", "attention.layer_norm_epsilon"))
    as_published = tower.copy()
    names = {"v.class_embd": "v.cls_embd", "mm.model.mlp.0": "mm.norm", "mm.model.mlp.1": "mm.1"}
    as_published.rename(replaced({**names, "mm.model.mlp.3": "mm.2"}))
    published.tensors |= as_published.tensors
    patches = random_tensor(34, 48, 768)
    published.tensors["v.patch_embd.weight"] = patches
    tower.tensors["v.patch_embd.weight"] = stored(patches.numbers().reshape(48, 3, 16, 16))
    positions = random_tensor(35, 1, 36, 48)
    published.tensors["v.position_embd"] = positions
    tower.tensors["v.position_embd.weight"] = stored(_between(positions.numbers().reshape(6, 6, 48), 4))
    for name in ("a.subsampling.out.weight", "a.blk.0.ffn_up.weight", "mm.a.1.weight"):
        published.tensors[name] = random_tensor(36, 48, 48)
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def _between(square: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """A square of `side` × `side` places, corner on corner: first along a row, then along a column."""
    last = len(square) - 1
    made = []
    for down in range(side):
        for across in range(side):
            x, y = (np.float32(place) * (np.float32(last) / np.float32(side - 1)) for place in (across, down))
            (left, top), (right, bottom) = (int(x), int(y)), (min(int(x) + 1, last), min(int(y) + 1, last))
            x, y = np.float32(x - left), np.float32(y - top)
            upper = square[top, left] * (1 - x) + square[top, right] * x
            lower = square[bottom, left] * (1 - x) + square[bottom, right] * x
            made.append(upper * (1 - y) + lower * y)
    return np.array(made, np.float32)


def nemotron_omni_moe(folder: Path) -> Twins:
    """A model of Omni's architecture with experts, whose encoders are not in the file."""
    text = _nemotron(folder, has_experts=True)
    model = text.write(folder / "model.gguf")
    published = _as_published(text)
    published.rename_prefix("nemotron_h_moe.", "nemotron_h_omni.")
    published.put(general__architecture="nemotron_h_omni")
    return Twins(model, published.write(folder / "published.gguf"))


def laguna(folder: Path) -> Twins:
    """The first block sees everything and has no experts, the second a window, with another rope."""
    text = decoder(folder, "laguna")
    for layer in range(LAYERS):
        for part in ("attn_q_norm", "attn_k_norm"):
            text.tensors[f"blk.{layer}.{part}.weight"] = random_tensor(layer, 32, kind=F32_KIND, centre=1)
        text.tensors[f"blk.{layer}.attn_gate.weight"] = random_tensor(40 + layer, 2, 64)
    for part in ("gate", "up", "down"):
        del text.tensors[f"blk.1.ffn_{part}.weight"]
        shape = (64, 96) if part == "down" else (96, 64)
        text.tensors[f"blk.1.ffn_{part}_exps.weight"] = random_tensor(len(part), 4, *shape)
        text.tensors[f"blk.1.ffn_{part}_shexp.weight"] = random_tensor(9 + len(part), *shape)
    text.tensors["blk.1.ffn_gate_inp.weight"] = random_tensor(8, 4, 64, kind=F32_KIND)
    text.tensors["blk.1.exp_probs_b.bias"] = random_tensor(9, 4, kind=F32_KIND)
    numbers: dict[str, Any] = {**MOE, "expert_feed_forward_length": 96, "expert_shared_feed_forward_length": 96}
    numbers |= {"leading_dense_block_count": 1, "expert_weights_norm": True, "expert_weights_scale": 2.5}
    numbers |= {"attention__sliding_window": 64, "rope__dimension_count": 16, "rope__freq_base": 500000.0}
    numbers |= {"attention__key_length": 32, "attention__value_length": 32}
    text.put(**{f"laguna__{name}": value for name, value in numbers.items()})
    text.put(laguna__rope__dimension_count_swa=32, laguna__rope__freq_base_swa=10000.0)
    model = text.write(folder / "model.gguf")
    text.rename_prefix("laguna.rope.dimension_count_swa", "laguna.rope.swa.dimension_count")
    text.rename_prefix("laguna.rope.freq_base_swa", "laguna.rope.swa.freq_base")
    text.rename(replaced({"attn_gate": "attn_g"}))
    return Twins(model, text.write(folder / "published.gguf"))


def arctic(folder: Path) -> Twins:
    """A BERT with pieces of words for tokens, which are found after capitals were made small."""
    parts = Parts.of(tiny_bert(folder / "bert.gguf"))
    table, pieces = _trained(folder)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces, "<mask>"]
    scores = [0.0] * 4 + [-1.0 - number / 8 for number in range(len(pieces))] + [0.0]
    kinds = [3, 3, 3, 2, *[1] * len(pieces), 3]
    parts.drop(*[key for key in parts.keys if key.startswith("tokenizer.")])
    parts.put(tokenizer__ggml__model="t5", tokenizer__ggml__pre="default", tokenizer__ggml__add_space_prefix=True)
    parts.put(tokenizer__ggml__remove_extra_whitespaces=True, tokenizer__ggml__token_type_count=2)
    for number, name in enumerate(("bos", "padding", "eos", "unknown")):
        parts.put(**{f"tokenizer__ggml__{name}_token_id": number})
    parts.put(tokenizer__ggml__add_bos_token=True, tokenizer__ggml__add_eos_token=True)
    for name, kind, elements in (("tokens", STRING, tokens), ("scores", F32, scores), ("token_type", I32, kinds)):
        parts.keys[f"tokenizer.ggml.{name}"] = (9, ArrayOf(kind, elements))
    parts.tensors["token_embd.weight"] = random_tensor(1, len(tokens), WIDTH, kind=F32_KIND)
    key = "tokenizer.ggml.precompiled_charsmap"
    parts.keys[key] = (9, ArrayOf(U8, list(table)))
    model = parts.write(folder / "model.gguf")
    parts.keys[key] = (9, ArrayOf(STRING, list(base64.b64encode(table).decode())))
    return Twins(model, parts.write(folder / "published.gguf"), embeds=True)


def _trained(folder: Path) -> tuple[bytes, list[str]]:
    """SentencePiece's table for small letters instead of some capitals, and pieces."""
    rules = folder / "rules.tsv"
    rules.write_text("".join(f"{ord(letter):X}\t{ord(letter.lower()):X}\n" for letter in "HWLTB"))
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello the world why is the sky blue and you that"] * 4),
        model_writer=made,
        vocab_size=40,
        normalization_rule_tsv=str(rules),
        hard_vocab_limit=False,
        minloglevel=2,
    )
    fields = dict(protobuf.fields(memoryview(made.getvalue())))
    normalizer = fields[3]
    assert isinstance(normalizer, memoryview)
    table = dict(protobuf.fields(normalizer))[2]
    assert isinstance(table, memoryview)
    trained = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return bytes(table), [trained.id_to_piece(number) for number in range(3, trained.get_piece_size())]


HYBRID: dict[str, Callable[[Path], Twins]] = {
    "nemotron": nemotron,
    "nemotron-omni": nemotron_omni,
    "nemotron-omni-moe": nemotron_omni_moe,
    "laguna": laguna,
    "arctic": arctic,
}
