"""A model of a thousand million random weights, with the tokenizer of a real one: for measurements, never committed.

Llama's architecture with tied embeddings, made with the `gguf` library and quantised by Corral's own quantiser. What it
says is noise, but it takes the time of any model of its size.
"""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from corral.machine.threads import cores_here
from corral.quantize import quantize

LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS = 16, 2048, 8192, 32, 8
KINDS = ("Q4_0", "Q4_K_M")


def made(tokenizer_of: Path, folder: Path, kind: str) -> Path:
    """The file of one kind, made anew where it is not in the folder; 2.1 GB more are needed meanwhile."""
    target = folder / f"synthetic-1b-{kind.lower()}.gguf"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "synthetic-1b-f16.gguf"
    if not source.exists():
        _write(tokenizer_of, source)
    part = target.with_suffix(".part")
    quantize(source, part, kind, threads=cores_here(), report=lambda step: None)
    part.rename(target)
    return target


def _write(tokenizer_of: Path, path: Path) -> None:
    writer = GGUFWriter(path.with_suffix(".part"), "llama")
    writer.add_name("synthetic 1B")
    writer.add_type("model")
    writer.add_file_type(1)  # mostly 16-bit floats
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    words = _copy_tokenizer(tokenizer_of, writer)
    writer.add_vocab_size(words)
    random = np.random.default_rng(0)

    def add(name: str, rows: int, columns: int) -> None:
        numbers = random.standard_normal((rows, columns), np.float32)
        writer.add_tensor(name, (numbers * np.float32(0.02)).astype(np.float16))

    add("token_embd.weight", words, WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    narrow = WIDTH // HEADS * KV_HEADS
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", narrow, WIDTH),
            ("attn_v", narrow, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", FEED_FORWARD, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            add(f"blk.{layer}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".part").rename(path)


def _copy_tokenizer(source: Path, writer: GGUFWriter) -> int:
    """Every key of the real model's tokenizer; the number of its tokens."""
    words = 0
    for name, field in GGUFReader(source).fields.items():
        if not name.startswith("tokenizer."):
            continue
        value: Any = field.contents()
        if name == "tokenizer.ggml.tokens":
            words = len(value)
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_key_value(name, value, GGUFValueType.ARRAY, sub_type=field.types[-1])
        else:
            writer.add_key_value(name, value, field.types[0])
    return words
