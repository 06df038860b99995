"""Tiny models with any tokenizer, and the real engine's tokens of texts by them."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from corral.engine.base import RunnerSpec
from corral.engine.llama.launch import launch
from corral.gguf.types import ValueType
from corral.gguf.writer import encode, layout, new_tensor

WIDTH = 32
Fields = Mapping[str, bytes]


def write_model(path: Path, tokenizer: Fields, vocab_size: int) -> Path:
    """A llama of one layer with random weights and this tokenizer."""
    integers = {
        "context_length": 4096,
        "embedding_length": WIDTH,
        "feed_forward_length": WIDTH,
        "block_count": 1,
        "attention.head_count": 1,
        "vocab_size": vocab_size,
    }
    fields = {
        "general.architecture": encode(ValueType.STRING, "llama"),
        "llama.attention.layer_norm_rms_epsilon": encode(ValueType.FLOAT32, 1e-5),
        **{f"llama.{key}": encode(ValueType.UINT32, value) for key, value in integers.items()},
        **tokenizer,
    }
    square = (WIDTH, WIDTH)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, vocab_size), "output_norm.weight": (WIDTH,)}
    shapes |= {f"blk.0.{part}_norm.weight": (WIDTH,) for part in ("attn", "ffn")}
    shapes |= {f"blk.0.attn_{part}.weight": square for part in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{part}.weight": square for part in ("gate", "up", "down")}
    tensors = [new_tensor(name, "F32", shape) for name, shape in shapes.items()]
    plan = layout(fields, tensors)
    random = np.random.default_rng(0)
    with open(path, "wb") as file:
        file.write(plan.header)
        for tensor in plan.tensors:
            data = random.normal(0, 0.1, tensor.elements).astype("<f4").tobytes()
            file.write(data + plan.padding(tensor))
    return path


def engine_tokens(path: Path, texts: Sequence[str], *, add_special: bool = False) -> list[list[int]]:
    """What the real engine makes of each text, marks in it included."""

    async def ask() -> list[list[int]]:
        spec = RunnerSpec(model=str(path), num_ctx=512, pool=512)
        engine = await launch(spec, log=path.with_suffix(".log"), stall_timeout=60)
        try:
            return [await engine.tokenize(text, add_special=add_special) for text in texts]
        finally:
            await engine.close()

    return asyncio.run(ask())


def as_json(path: Path, value: object) -> Path:
    """Writes a JSON file."""
    path.write_bytes(msgspec.json.encode(value))
    return path
