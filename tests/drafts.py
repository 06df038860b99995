"""Small models of several architectures as drafts: a test changes any key or tensor of one and writes it as a file.

The numbers of a draft fit together and the engine loads it; what a test changes is then all that is wrong with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from corral.gguf import TENSOR_TYPES
from tests.gguf_bytes import F32, STRING, U32, FakeTensor, Header, header_of
from tests.tiny_models import (
    FEED_FORWARD,
    HEAD_WIDTH,
    HEADS,
    KV_HEADS,
    LAYERS,
    WIDTH,
    tiny_bert,
    tiny_gemma3,
    tiny_llama,
    tiny_llava,
    tiny_lora,
)

Value = tuple[int, Any]
"""A value type of `gguf_bytes` and the value."""

TYPES = {kind.name: number for number, kind in TENSOR_TYPES.items()}

EXPERTS = 4


@dataclass(frozen=True)
class Weight:
    """A tensor: its shape with the row length first, its type, its bytes (as many as the type wants, or not)."""

    shape: tuple[int, ...]
    kind: str
    data: bytes


@dataclass(frozen=True)
class Draft:
    """A file that is not written yet."""

    keys: Mapping[str, Value]
    tensors: Mapping[str, Weight]

    def with_keys(self, **values: Value) -> "Draft":
        """`__` in a name stands for a dot."""
        return self.with_key({name.replace("__", "."): value for name, value in values.items()})

    def with_key(self, values: Mapping[str, Value]) -> "Draft":
        return replace(self, keys={**self.keys, **values})

    def with_tensors(self, tensors: Mapping[str, Weight]) -> "Draft":
        return replace(self, tensors={**self.tensors, **tensors})

    def without(self, *names: str) -> "Draft":
        """Without keys and tensors of these names."""
        for name in names:
            assert name in self.keys or name in self.tensors, name
        return Draft(
            {name: value for name, value in self.keys.items() if name not in names},
            {name: value for name, value in self.tensors.items() if name not in names},
        )

    def renamed(self, name: str, other: str) -> "Draft":
        """With a tensor under another name."""
        assert name in self.tensors, name
        return replace(self, tensors={other if key == name else key: value for key, value in self.tensors.items()})

    def header(self, alignment: int = 32) -> Header:
        listed, data, offset = [], [], 0
        for name, weight in self.tensors.items():
            listed.append(FakeTensor(name, weight.shape, TYPES[weight.kind], offset))
            padded = weight.data + bytes(-len(weight.data) % alignment)
            data.append(padded)
            offset += len(padded)
        keys = [(name, kind, value) for name, (kind, value) in self.keys.items()]
        return Header(keys, listed, b"".join(data), alignment=alignment)

    def encode(self) -> bytes:
        return self.header().encode()


def weight(*shape: int, kind: str = "F32", data: bytes | None = None, seed: int = 0) -> Weight:
    """A tensor of this shape, row length first: small random numbers, or in other types than floats zeros."""
    if data is None:
        random = np.random.default_rng(seed)
        numbers = random.normal(0, 0.2, int(np.prod(shape, dtype=np.int64)))
        if kind in ("F32", "F16"):
            data = numbers.astype(np.float32 if kind == "F32" else np.float16).tobytes()
        elif kind == "BF16":
            data = (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            layout = TENSOR_TYPES[TYPES[kind]]
            data = bytes(-(-int(np.prod(shape, dtype=np.int64)) // layout.block) * layout.block_bytes)
    return Weight(shape, kind, data)


def draft_of(path: Path) -> Draft:
    """What is in a file."""
    header = header_of(path)
    names = {number: kind.name for number, kind in TENSOR_TYPES.items()}
    tensors = {}
    for tensor in header.tensors:
        layout = TENSOR_TYPES[tensor.kind]
        size = int(np.prod(tensor.shape, dtype=np.int64)) // layout.block * layout.block_bytes
        data = header.data[tensor.offset : tensor.offset + size]
        tensors[str(tensor.name)] = Weight(tuple(tensor.shape), names[tensor.kind], data)
    return Draft({str(name): (kind, value) for name, kind, value in header.keys}, tensors)


@cache
def llama() -> Draft:
    return _tiny(lambda path: tiny_llama(path, outtype="f32"))


@cache
def bert() -> Draft:
    return _tiny(tiny_bert)


@cache
def lora() -> Draft:
    return _tiny(tiny_lora)


@cache
def llava_projector() -> Draft:
    return _tiny(lambda path: tiny_llava(path.with_name("model"), path))


@cache
def gemma3() -> Draft:
    return _tiny(lambda path: tiny_gemma3(path, path.with_name("projector")))


@cache
def gemma3_projector() -> Draft:
    return _tiny(lambda path: tiny_gemma3(path.with_name("model"), path))


@cache
def qwen2() -> Draft:
    made = like_llama("qwen2")
    biases = {
        f"blk.{layer}.attn_{part}.bias": weight(rows)
        for layer in range(LAYERS)
        for part, rows in (("q", WIDTH), ("k", KV_HEADS * HEAD_WIDTH), ("v", KV_HEADS * HEAD_WIDTH))
    }
    return made.with_tensors(biases)


@cache
def qwen3() -> Draft:
    """With heads wider than its embeddings divided by their number."""
    wide = 2 * HEAD_WIDTH
    made = like_llama("qwen3").with_key(
        {"qwen3.attention.key_length": (U32, wide), "qwen3.attention.value_length": (U32, wide)}
    )
    made = made.without("qwen3.rope.dimension_count")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        made = made.with_tensors(
            {
                f"{block}.attn_q.weight": weight(WIDTH, HEADS * wide),
                f"{block}.attn_k.weight": weight(WIDTH, KV_HEADS * wide),
                f"{block}.attn_v.weight": weight(WIDTH, KV_HEADS * wide),
                f"{block}.attn_output.weight": weight(HEADS * wide, WIDTH),
                f"{block}.attn_q_norm.weight": weight(wide),
                f"{block}.attn_k_norm.weight": weight(wide),
            }
        )
    return made


@cache
def phi3() -> Draft:
    """Its queries, keys and values in one tensor, and both halves of its feed-forward in another."""
    made = like_llama("phi3").with_key(
        {
            "phi3.rope.scaling.original_context_length": (U32, 2048),
            "phi3.attention.sliding_window": (U32, 512),
        }
    )
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        parts = [f"{block}.attn_{part}.weight" for part in "qkv"]
        made = made.without(*parts, f"{block}.ffn_gate.weight").with_tensors(
            {
                f"{block}.attn_qkv.weight": weight(WIDTH, WIDTH + 2 * KV_HEADS * HEAD_WIDTH),
                f"{block}.ffn_up.weight": weight(WIDTH, 2 * FEED_FORWARD),
            }
        )
    return made


@cache
def experts() -> Draft:
    """A llama whose feed-forward is shared out among experts."""
    made = like_llama("llama").with_key({"llama.expert_count": (U32, EXPERTS), "llama.expert_used_count": (U32, 2)})
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        made = made.without(*(f"{block}.ffn_{part}.weight" for part in ("gate", "up", "down"))).with_tensors(
            {
                f"{block}.ffn_gate_inp.weight": weight(WIDTH, EXPERTS),
                f"{block}.ffn_gate_exps.weight": weight(WIDTH, FEED_FORWARD, EXPERTS),
                f"{block}.ffn_up_exps.weight": weight(WIDTH, FEED_FORWARD, EXPERTS),
                f"{block}.ffn_down_exps.weight": weight(FEED_FORWARD, WIDTH, EXPERTS),
            }
        )
    return made


@cache
def mamba() -> Draft:
    """Without attention: a state that is carried along."""
    inner, state, step, kernel = 2 * WIDTH, 8, 4, 4
    llama_keys = _renamed_keys(llama(), "mamba")
    keys = {name: value for name, value in llama_keys.items() if not name.startswith("mamba.rope")}
    keys |= {
        "mamba.ssm.conv_kernel": (U32, kernel),
        "mamba.ssm.inner_size": (U32, inner),
        "mamba.ssm.state_size": (U32, state),
        "mamba.ssm.time_step_rank": (U32, step),
        "mamba.attention.head_count": (U32, 0),
        "mamba.attention.head_count_kv": (U32, 0),
        "mamba.feed_forward_length": (U32, 0),
    }
    tensors = {name: llama().tensors[name] for name in ("token_embd.weight", "output_norm.weight", "output.weight")}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors |= {
            f"{block}.attn_norm.weight": weight(WIDTH),
            f"{block}.ssm_in.weight": weight(WIDTH, 2 * inner),
            f"{block}.ssm_conv1d.weight": weight(kernel, inner),
            f"{block}.ssm_conv1d.bias": weight(inner),
            f"{block}.ssm_x.weight": weight(inner, step + 2 * state),
            f"{block}.ssm_dt.weight": weight(step, inner),
            f"{block}.ssm_dt.bias": weight(inner),
            f"{block}.ssm_a": weight(state, inner),
            f"{block}.ssm_d": weight(inner),
            f"{block}.ssm_out.weight": weight(inner, WIDTH),
        }
    return Draft(keys, tensors)


@cache
def deepseek2() -> Draft:
    """With latent attention: keys and values are made of one short vector."""
    latent, rope, plain, value = 32, 16, 32, 32
    made = like_llama("deepseek2").with_key(
        {
            "deepseek2.attention.head_count_kv": (U32, 1),
            "deepseek2.attention.kv_lora_rank": (U32, latent),
            "deepseek2.attention.q_lora_rank": (U32, latent),
            "deepseek2.attention.key_length": (U32, latent + rope),
            "deepseek2.attention.value_length": (U32, latent),
            "deepseek2.attention.key_length_mla": (U32, plain + rope),
            "deepseek2.attention.value_length_mla": (U32, value),
            "deepseek2.rope.dimension_count": (U32, rope),
            "deepseek2.leading_dense_block_count": (U32, LAYERS),
            "deepseek2.expert_feed_forward_length": (U32, FEED_FORWARD),
            "deepseek2.expert_count": (U32, EXPERTS),
            "deepseek2.expert_used_count": (U32, 2),
            "deepseek2.expert_shared_count": (U32, 1),
            "deepseek2.expert_weights_scale": (F32, 1.0),
        }
    )
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        made = made.without(*(f"{block}.attn_{part}.weight" for part in "qkv")).with_tensors(
            {
                f"{block}.attn_q_a.weight": weight(WIDTH, latent),
                f"{block}.attn_q_a_norm.weight": weight(latent),
                f"{block}.attn_q_b.weight": weight(latent, HEADS * (plain + rope)),
                f"{block}.attn_kv_a_mqa.weight": weight(WIDTH, latent + rope),
                f"{block}.attn_kv_a_norm.weight": weight(latent),
                f"{block}.attn_k_b.weight": weight(plain, latent, HEADS),
                f"{block}.attn_v_b.weight": weight(latent, value, HEADS),
                f"{block}.attn_output.weight": weight(HEADS * value, WIDTH),
            }
        )
    return made


@cache
def nomic_bert() -> Draft:
    """A BERT with rotated positions, fused queries, keys and values, and a gate."""
    made = Draft(_renamed_keys(bert(), "nomic-bert"), bert().tensors).without("position_embd.weight")
    made = made.with_key({"nomic-bert.rope.freq_base": (F32, 1000.0)})
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        parts = [f"{block}.attn_{part}.{end}" for part in "qkv" for end in ("weight", "bias")]
        biases = [f"{block}.{part}.bias" for part in ("attn_output", "ffn_up", "ffn_down")]
        made = made.without(*parts, *biases).with_tensors(
            {
                f"{block}.attn_qkv.weight": weight(WIDTH, 3 * WIDTH),
                f"{block}.ffn_gate.weight": weight(WIDTH, FEED_FORWARD),
            }
        )
    return made


def like_llama(architecture: str) -> Draft:
    """The llama's keys and tensors under another architecture's name."""
    return Draft(_renamed_keys(llama(), architecture), llama().tensors)


def _renamed_keys(draft: Draft, architecture: str) -> dict[str, Value]:
    old = f"{draft.keys['general.architecture'][1]}."
    keys = {
        f"{architecture}.{name.removeprefix(old)}" if name.startswith(old) else name: value
        for name, value in draft.keys.items()
    }
    return {**keys, "general.architecture": (STRING, architecture)}


def _tiny(make: Callable[[Path], object]) -> Draft:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.gguf"
        make(path)
        return draft_of(path)
