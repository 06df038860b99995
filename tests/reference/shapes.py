"""Which tensors a checkpoint of each architecture has, by their published names, and of which shape."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Config = dict[str, Any]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


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
