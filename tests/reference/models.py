"""Small checkpoints of random weights, one for each way that an architecture is configured. NumPy only.

Deterministic: the same case gives the same numbers, in the ordinary tests and in `record.py`.
"""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests import safetensors_bytes
from tests.reference.folders import vocabulary, write_bpe, write_modules, write_wordpiece
from tests.reference.shapes import SHAPES, Config
from tests.tiny_models import wordpiece_vocabulary

WIDTH, HEADS, KV_HEADS, LAYERS, FEED_FORWARD = 64, 4, 2, 2, 96


VOCABULARY = len(vocabulary()[0])
PADDED = VOCABULARY + 3


@dataclass(frozen=True)
class Case:
    """One configuration, and how its weights are stored. `prefix` comes before the tensors' published names."""

    name: str
    config: Config
    dtype: str = "F32"
    prefix: str = ""
    seed: int = 0
    options: Config = field(default_factory=dict)
    """Options of the request that the case is asked with."""
    long: bool = False
    """Whether a long prompt is asked, too."""

    pooling: str = ""
    """`mean` or `lasttoken` for models that make vectors instead of text."""

    @property
    def text_config(self) -> Config:
        return dict(self.config.get("text_config", self.config))

    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """The tensors by their published names."""
        shapes = SHAPES[self.config["architectures"][0]](self.text_config)
        return {self.named(name): self._random(name, shape) for name, shape in shapes}

    def named(self, name: str) -> str:
        """A tensor's name in this checkpoint; models that embed are saved without the head and its prefix."""
        return self.prefix + (name.removeprefix("model.") if self.pooling else name)

    def write(self, folder: Path) -> dict[str, Path]:
        """The checkpoint's files by name."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        safetensors_bytes.write(folder / "model.safetensors", self.weights(), self.dtype)
        (write_wordpiece if "bert" in self.config["model_type"] else write_bpe)(folder)
        if self.pooling:
            write_modules(folder, self.pooling)
        return {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.*")}

    def _random(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        if "norm" in name.lower() and name.endswith("weight"):
            around = 0 if "gemma" in self.text_config["model_type"] else 1
            return random.normal(around, 0.2, shape).astype(np.float32)
        if len(shape) == 1:
            return random.normal(0, 0.2, shape).astype(np.float32)
        spread = 1 / 8 if "embed" in name else 2 / shape[-1] ** 0.5
        found = random.normal(0, spread, shape).astype(np.float32)
        if shape[0] == PADDED:  # so that no answer ends at once
            found[:3] *= 0.1
            found[VOCABULARY:] *= 0.1
        return found


def sharded(case: Case, folder: Path, count: int) -> dict[str, Path]:
    """The case's checkpoint in `count` files with an index."""
    files = case.write(folder)
    files.pop("model.safetensors").unlink()
    weights = list(case.weights().items())
    places = {}
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        files[name] = safetensors_bytes.write(folder / name, dict(weights[number::count]))
        places.update(dict.fromkeys(dict(weights[number::count]), name))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return {**files, index.name: index}


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


_LLAMA = _config("LlamaForCausalLM", "llama")

_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0 + number / 20 for number in range(8)],
    "long_factor": [1.0 + number for number in range(8)],
}
_GEMMA: Config = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "head_dim": 32}
_GEMMA2: Config = {**_GEMMA, "query_pre_attn_scalar": 32, "sliding_window": 16, "tie_word_embeddings": True}
_GEMMA3 = _config(
    "Gemma3ForCausalLM",
    "gemma3_text",
    **_GEMMA2,
    num_hidden_layers=6,
    sliding_window_pattern=3,
    rope_scaling={"rope_type": "linear", "factor": 8.0},
    rope_local_base_freq=100.0,
)
_PHI3 = _config("Phi3ForCausalLM", "phi3", sliding_window=None)

_QWEN3 = _config(
    "Qwen3ForCausalLM",
    "qwen3",
    head_dim=32,
    rope_theta=None,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
)
_ENCODER: Config = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": 128,
    "vocab_size": len(wordpiece_vocabulary()),
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}

CASES = [
    Case("llama", {**_LLAMA, "num_key_value_heads": HEADS}),
    Case("llama-tied-biased", {**_LLAMA, "tie_word_embeddings": True, "attention_bias": True}),
    Case("llama-3", {**_LLAMA, "rope_scaling": _LLAMA3}, dtype="BF16", long=True),
    Case("llama-linear", {**_LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}}, dtype="F16", long=True),
    Case("llama-yarn", {**_LLAMA, "rope_scaling": _YARN, "head_dim": 32}, long=True),
    Case("mistral", _config("MistralForCausalLM", "mistral", sliding_window=96, head_dim=32), long=True),
    Case("mixtral", _config("MixtralForCausalLM", "mixtral", num_local_experts=4, num_experts_per_tok=2)),
    Case("qwen2", _config("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True)),
    Case("qwen3", _QWEN3),
    Case(
        "qwen3-experts",
        _config(
            "Qwen3MoeForCausalLM",
            "qwen3_moe",
            head_dim=16,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
    ),
    Case(
        "gemma",
        _config("GemmaForCausalLM", "gemma", **_GEMMA, num_key_value_heads=1, tie_word_embeddings=True),
        dtype="BF16",
    ),
    Case(
        "gemma2",
        _config("Gemma2ForCausalLM", "gemma2", **_GEMMA2, attn_logit_softcapping=5.0, final_logit_softcapping=8.0),
        long=True,
    ),
    Case("gemma3", _GEMMA3, long=True),
    Case("phi3", {**_PHI3, "partial_rotary_factor": 0.5}),
    Case(
        "phi3-longrope",
        {**_PHI3, "rope_scaling": _LONGROPE, "original_max_position_embeddings": 512, "max_position_embeddings": 4096},
        options={"num_ctx": 256},  # the engine decides by the context it was loaded for, not by the text's length
    ),
    Case(
        "phi3-longrope-long",
        {**_PHI3, "rope_scaling": _LONGROPE, "original_max_position_embeddings": 32},
        seed=1,
        long=True,
    ),
    Case(
        "granite",
        _config(
            "GraniteForCausalLM",
            "granite",
            logits_scaling=0.5,
            residual_multiplier=0.7,
            embedding_multiplier=6.0,
            attention_multiplier=0.1,
        ),
    ),
    Case("qwen3-embedding", {**_QWEN3, "tie_word_embeddings": True}, pooling="lasttoken"),
    Case(
        "bert",
        {**_ENCODER, "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu"},
        pooling="mean",
    ),
    Case(
        "nomic-bert",
        {
            **_ENCODER,
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "hidden_act": "silu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        },
        pooling="mean",
    ),
]
