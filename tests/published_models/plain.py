"""Twins of families without an encoder."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.gguf_bytes import BOOL, F32, I32, STRING, ArrayOf
from tests.published_models.building import (
    F16,
    F32_KIND,
    MOE,
    MXFP4,
    Twins,
    decoder,
    halved,
    random_tensor,
    repeat_blocks,
)
from tests.published_models.parts import Parts, replaced, stored
from tests.tiny_models import LAYERS, tiny_gemma3, tiny_llama


def llama3(folder: Path) -> Twins:
    """128,010 tokens, most of them names only, with eight numbers each."""
    tiny_llama(folder / "tiny.gguf", metadata={})
    parts = Parts.of(folder / "tiny.gguf")
    tokens = parts.keys["tokenizer.ggml.tokens"][1].elements
    names = [*tokens, *(f"filler{number}" for number in range(len(tokens), 128000))]
    special = ["begin_of_text", "end_of_text", *(f"reserved_special_token_{number}" for number in range(4))]
    names += [f"<|{name}|>" for name in (*special, "start_header_id", "end_header_id", "reserved_4", "eot_id")]
    parts.keys["tokenizer.ggml.tokens"] = (9, ArrayOf(STRING, names))
    types = [*parts.keys["tokenizer.ggml.token_type"][1].elements, *[1] * (128000 - len(tokens)), *[3] * 10]
    parts.keys["tokenizer.ggml.token_type"] = (9, ArrayOf(I32, types))
    parts.put(llama__vocab_size=len(names), tokenizer__ggml__bos_token_id=128000)
    random = np.random.default_rng(3)
    for name in ("token_embd.weight", "output.weight"):
        rows = parts.tensors[name].numbers()
        filler = random.normal(0, 1, (len(names) - len(rows), rows.shape[1]))
        parts.tensors[name] = stored(np.concatenate([rows, filler]), F16)
    parts.put(tokenizer__ggml__pre="llama-bpe", tokenizer__ggml__eos_token_id=128009)
    parts.put(tokenizer__ggml__eot_token_id=128009)
    model = parts.write(folder / "model.gguf")
    parts.put(tokenizer__ggml__pre="default", tokenizer__ggml__eos_token_id=128001)
    parts.drop("tokenizer.ggml.eot_token_id")
    return Twins(model, parts.write(folder / "published.gguf"))


def gptoss(folder: Path) -> Twins:
    """With MXFP4 experts, sinks and biases."""
    parts = decoder(folder, "gpt-oss")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part, rows in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32), ("attn_output", 64)):
            parts.tensors[f"{block}.{part}.bias"] = random_tensor(rows + layer, rows, kind=F32_KIND)
        parts.tensors[f"{block}.attn_sinks.weight"] = random_tensor(layer, 2, kind=F32_KIND)
        parts.tensors[f"{block}.post_attention_norm.weight"] = parts.tensors.pop(f"{block}.ffn_norm.weight")
        for part in ("gate", "up", "down"):
            del parts.tensors[f"{block}.ffn_{part}.weight"]
        parts.tensors[f"{block}.ffn_gate_inp.weight"] = random_tensor(layer, 4, 64, kind=F32_KIND)
        parts.tensors[f"{block}.ffn_gate_inp.bias"] = random_tensor(layer + 5, 4, kind=F32_KIND)
        for number, (part, shape) in enumerate((("gate", (4, 96, 64)), ("up", (4, 96, 64)), ("down", (4, 64, 96)))):
            name = f"{block}.ffn_{part}_exps"
            parts.tensors[f"{name}.weight"] = random_tensor(9 * layer + number, *shape, kind=MXFP4)
            parts.tensors[f"{name}.bias"] = random_tensor(7 * layer + number, *shape[:2], kind=F32_KIND)
    parts.rename_prefix("gpt-oss.feed_forward_length", "gpt-oss.expert_feed_forward_length")
    parts.put(**{f"gpt-oss__{key}": value for key, value in MOE.items()})
    parts.put(**{"gpt-oss__expert_feed_forward_length": 96, "gpt-oss__attention__sliding_window": 64})
    parts.put(**{"gpt-oss__rope__scaling__type": "yarn", "tokenizer__ggml__pre": "gpt-4o"})
    parts.put(**{"gpt-oss__rope__scaling__factor": 32.0, "gpt-oss__rope__scaling__original_context_length": 512})
    model = parts.write(folder / "model.gguf")
    parts.rename_prefix("gpt-oss.", "gptoss.")
    parts.put(general__architecture="gptoss", tokenizer__ggml__pre="default")
    parts.drop("gptoss.expert_feed_forward_length", "gptoss.rope.scaling.type")
    parts.rename(
        replaced(
            {
                "attn_output": "attn_out",
                "attn_sinks.weight": "attn_sinks",
                "post_attention_norm": "ffn_norm",
            }
        )
    )
    return Twins(model, parts.write(folder / "published.gguf"))


def embeddinggemma(folder: Path) -> Twins:
    tiny_gemma3(folder / "tiny.gguf", folder / "tower.gguf")
    parts = Parts.of(folder / "tiny.gguf")
    halved(parts)
    parts.rename_prefix("gemma3.", "gemma-embedding.")
    del parts.tensors["output.weight"]
    repeat_blocks(parts, 6)  # the sixth attends to all tokens: without such a block the engine ends its process
    parts.put(**{"gemma-embedding__block_count": 6})
    parts.tensors["dense_2.weight"] = random_tensor(1, 96, 64)
    parts.tensors["dense_3.weight"] = random_tensor(2, 64, 96)
    parts.put(general__architecture="gemma-embedding")
    numbers: dict[str, Any] = {"pooling_type": 1, "rope__freq_base_swa": 10000.0}
    numbers |= {"dense_2_feat_in": 64, "dense_2_feat_out": 96, "dense_3_feat_in": 96, "dense_3_feat_out": 64}
    parts.put(**{f"gemma-embedding__{name}": value for name, value in numbers.items()})
    parts.keys["gemma-embedding.attention.layer_norm_rms_epsilon"] = (F32, 9.999999974752427e-07)
    model = parts.write(folder / "model.gguf")
    parts.rename_prefix("gemma-embedding.", "gemma3.")
    parts.drop("gemma3.rope.freq_base_swa", "gemma3.attention.layer_norm_rms_epsilon")
    parts.drop(*(f"gemma3.dense_{number}_feat_{end}" for number in (2, 3) for end in ("in", "out")))
    parts.put(general__architecture="gemma3", gemma3__attention__causal=False)
    parts.put(gemma3__attention__sliding_window_pattern=(9, ArrayOf(BOOL, [False, True])))
    parts.rename(replaced({"dense_2": "dense.0", "dense_3": "dense.1"}))
    parts.tensors["norm.weight"] = parts.tensors.pop("output_norm.weight")
    return Twins(model, parts.write(folder / "published.gguf"), embeds=True)
