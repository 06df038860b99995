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
from tests.tiny_models import bpe_vocabulary, wordpiece_vocabulary

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


def write_modules(folder: Path, mode: str) -> None:
    """What sentence-transformers writes of a model whose vectors are pooled in this way."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    flags = {f"pooling_mode_{name}": name.startswith(mode) for name in ("mean_tokens", "cls_token", "lasttoken")}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **flags}))


def write_wordpiece(folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json` of an uncased BERT's small vocabulary."""
    tokens = {token: number for number, token in enumerate(wordpiece_vocabulary())}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ("[CLS]", "[SEP]")
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": tokens[token], "content": token, **plain} for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [tokens[name]], "tokens": [name]} for name in names},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": tokens,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_bpe(folder: Path) -> None:
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


def _linear(name: str, rows: int, columns: int) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _layer_norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _bert(config: Config) -> Shapes:
    width, forward = config["hidden_size"], config["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield "embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    yield "embeddings.token_type_embeddings.weight", (config["type_vocab_size"], width)
    yield from _layer_norm("embeddings.LayerNorm", width)
    yield from _linear("pooler.dense", width, width)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _linear(f"{at}.attention.{part}", width, width)
        yield from _layer_norm(f"{at}.attention.output.LayerNorm", width)
        yield from _linear(f"{at}.intermediate.dense", forward, width)
        yield from _linear(f"{at}.output.dense", width, forward)
        yield from _layer_norm(f"{at}.output.LayerNorm", width)


def _nomic_bert(config: Config) -> Shapes:
    width, forward = config["hidden_size"], config["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield "embeddings.token_type_embeddings.weight", (config["type_vocab_size"], width)
    yield from _layer_norm("emb_ln", width)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layers.{layer}"
        yield f"{at}.attn.Wqkv.weight", (3 * width, width)
        yield f"{at}.attn.out_proj.weight", (width, width)
        yield from _layer_norm(f"{at}.norm1", width)
        yield f"{at}.mlp.fc11.weight", (forward, width)
        yield f"{at}.mlp.fc12.weight", (forward, width)
        yield f"{at}.mlp.fc2.weight", (width, forward)
        yield from _layer_norm(f"{at}.norm2", width)


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
    "BertModel": _bert,
    "NomicBertModel": _nomic_bert,
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
