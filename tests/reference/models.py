"""Small checkpoints of random weights, one for each way that an architecture is configured. NumPy only.

Deterministic: the same case gives the same numbers, in the ordinary tests and in `record.py`.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests import safetensors_bytes
from tests.tiny_models import bpe_vocabulary

Config = dict[str, Any]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

WIDTH, HEADS, KV_HEADS, LAYERS, FEED_FORWARD = 64, 4, 2, 2, 96


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges) of byte-level BPE: three special tokens, printable ASCII and what the merges make of it."""
    tokens, merges = bpe_vocabulary()
    letters = {chr(code) for code in range(33, 127)} | {"Ġ", "Ċ"}
    plain = [token for token in tokens[3:] if token in letters or (len(token) > 1 and set(token) <= letters)]
    return [*tokens[:3], *plain], [merge for merge in merges if set(merge) - {" "} <= letters]


VOCABULARY = len(vocabulary()[0])
PADDED = VOCABULARY + 3


@dataclass(frozen=True)
class Case:
    """One configuration. `layers` of shapes come from `shapes`; `zero_norms`: norms are stored as distance from 1."""

    name: str
    config: Config
    dtype: str = "F32"
    prefix: str = ""
    seed: int = 0
    options: Config = field(default_factory=dict)
    """Options of the request that the case is asked with."""
    long: bool = False
    """Whether a long prompt is asked, too."""

    @property
    def text_config(self) -> Config:
        return dict(self.config.get("text_config", self.config))

    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """The tensors by their published names."""
        shapes = SHAPES[self.config["architectures"][0]](self.text_config)
        return {self.named(name): self._random(name, shape) for name, shape in shapes}

    def named(self, name: str) -> str:
        """A tensor's name in this checkpoint."""
        return self.prefix + name

    def write(self, folder: Path) -> dict[str, Path]:
        """The checkpoint's files by name."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        safetensors_bytes.write(folder / "model.safetensors", self.weights(), self.dtype)
        write_tokenizer(folder)
        return {file.name: file for file in folder.iterdir()}

    def _random(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        if "norm" in name.lower() and name.endswith("weight"):
            around = 0 if "gemma" in self.text_config["model_type"] else 1
            return random.normal(around, 0.2, shape).astype(np.float32)
        if len(shape) == 1:
            return random.normal(0, 0.2, shape).astype(np.float32)
        spread = 1 / 8 if "embed" in name else 2 / shape[-1] ** 0.5
        return random.normal(0, spread, shape).astype(np.float32)


def write_tokenizer(folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json` of `vocabulary`."""
    tokens, merges = vocabulary()
    special = [
        {"id": number, "content": token, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for number, token in enumerate(tokens[:3])
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": merges,
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokens[0], "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def _decoder(config: Config, *, parts: str = "separate", norms: tuple[str, ...] = (), bias: str = "") -> Shapes:
    width, forward = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    yield "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm", *norms):
            yield f"{at}.{norm}.weight", (head if norm.startswith("self_attn") else width,)
        yield f"{at}.self_attn.o_proj.weight", (width, queries)
        if parts == "fused":
            yield f"{at}.self_attn.qkv_proj.weight", (queries + 2 * keys, width)
            yield f"{at}.mlp.gate_up_proj.weight", (2 * forward, width)
            yield f"{at}.mlp.down_proj.weight", (width, forward)
            continue
        for letter, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{at}.self_attn.{letter}_proj.weight", (rows, width)
            if letter in bias:
                yield f"{at}.self_attn.{letter}_proj.bias", (rows,)
        if "o" in bias:
            yield f"{at}.self_attn.o_proj.bias", (width,)
        yield from _feed_forward(config, at)


def _feed_forward(config: Config, at: str) -> Shapes:
    width, forward = config["hidden_size"], config["intermediate_size"]
    if "num_local_experts" in config:
        yield f"{at}.block_sparse_moe.gate.weight", (config["num_local_experts"], width)
        for expert in range(config["num_local_experts"]):
            yield f"{at}.block_sparse_moe.experts.{expert}.w1.weight", (forward, width)
            yield f"{at}.block_sparse_moe.experts.{expert}.w2.weight", (width, forward)
            yield f"{at}.block_sparse_moe.experts.{expert}.w3.weight", (forward, width)
    elif "num_experts" in config:
        yield f"{at}.mlp.gate.weight", (config["num_experts"], width)
        for expert in range(config["num_experts"]):
            yield f"{at}.mlp.experts.{expert}.gate_proj.weight", (config["moe_intermediate_size"], width)
            yield f"{at}.mlp.experts.{expert}.up_proj.weight", (config["moe_intermediate_size"], width)
            yield f"{at}.mlp.experts.{expert}.down_proj.weight", (width, config["moe_intermediate_size"])
    else:
        for name, shape in (("gate", (forward, width)), ("up", (forward, width)), ("down", (width, forward))):
            yield f"{at}.mlp.{name}_proj.weight", shape


def _llama(config: Config) -> Shapes:
    return _decoder(config, bias="qkvo" if config.get("attention_bias") else "")


_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_AROUND = ("pre_feedforward_layernorm", "post_feedforward_layernorm")

SHAPES: dict[str, Callable[[Config], Shapes]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _decoder,
    "MixtralForCausalLM": _decoder,
    "GraniteForCausalLM": _decoder,
    "GemmaForCausalLM": _decoder,
    "Qwen2ForCausalLM": partial(_decoder, bias="qkv"),
    "Qwen3ForCausalLM": partial(_decoder, norms=_HEAD_NORMS),
    "Qwen3MoeForCausalLM": partial(_decoder, norms=_HEAD_NORMS),
    "Gemma2ForCausalLM": partial(_decoder, norms=_AROUND),
    "Gemma3ForCausalLM": partial(_decoder, norms=(*_AROUND, *_HEAD_NORMS)),
    "Gemma3ForConditionalGeneration": partial(_decoder, norms=(*_AROUND, *_HEAD_NORMS)),
    "Phi3ForCausalLM": partial(_decoder, parts="fused"),
}


def _config(architecture: str, model_type: str, **changes: Any) -> Config:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FEED_FORWARD,
        "max_position_embeddings": 512,
        "vocab_size": PADDED,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        **changes,
    }


def _llama_case(name: str, **changes: Any) -> Case:
    return Case(f"llama-{name}", _config("LlamaForCausalLM", "llama", **changes))


_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

CASES = [
    _llama_case("plain", num_key_value_heads=HEADS),
    _llama_case("grouped-tied-biased", tie_word_embeddings=True, attention_bias=True),
]
