"""What it takes to prepare a model that is published in a layout the engine does not load: bytes on the disk, and time.

    python benchmarks/derive.py [--folder FOLDER] [--rounds 3] [--layers 34]

Writes a file of 4 GB in the layout of a published Gemma 3 with its encoder of pictures, of random bytes, and derives
from it what the engine is given. Bytes on the disk are those of the file system's blocks: what its free room shrank
by (exact where nothing else writes to it), and what does not share blocks by Corral's own record. Copying the file is
the other side, in the same session. On btrfs and XFS blocks are shared; `--folder` says where to try.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measuring import header, speed

from corral import published
from corral.gguf import ValueType, writer
from corral.models import deriving
from corral.store.derived import Made

WIDTH, FEED_FORWARD, QUERIES, VALUES = 2560, 10240, 2048, 1024
HEAD, VOCABULARY, MORE_TOKENS = 256, 262144, 64
TOWER, TOWER_FEED_FORWARD, TOWER_LAYERS, PATCH, PICTURE = 1152, 4304, 27, 14, 896
POOL = 1 << 26
"""Random bytes that tensors are made of, over and over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files lie; the system's own by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=34)
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "published.gguf"
        write_published(source, arguments.layers)
        size = source.stat().st_size
        print(f"published file: {size / 1e9:.2f} GB, on {file_system(source)}")
        times: dict[str, list[float]] = {"derived": [], "copied": []}
        for number in range(arguments.rounds):
            made, room, seconds = derived(source, Path(folder) / "derived")
            times["derived"].append(seconds)
            print(
                f"round {number + 1}: derived in {seconds:.2f} s, way: {made.way}; {made.size:,} bytes in "
                f"{len(made.files)} files, of them not shared {made.disk_bytes:,} "
                f"({100 * made.disk_bytes / size:.2f} %); room on the disk {room:,} ({100 * room / size:.2f} %)"
            )
            seconds = copied(source, Path(folder) / "copy.gguf")
            times["copied"].append(seconds)
            print(f"round {number + 1}: copied, written out, in {seconds:.2f} s, {speed(size, seconds)}")
        medians = {side: statistics.median(found) for side, found in times.items()}
        print(f"median: derived {medians['derived']:.2f} s, copied {medians['copied']:.2f} s")
        print(f"deriving takes {medians['derived'] / medians['copied']:.2f} of the time of copying the file")


def derived(source: Path, target: Path) -> tuple[Made, int, float]:
    """What was made, the bytes by which the free room shrank, and seconds with flushing to the disk."""
    target.mkdir()
    before = free(source)
    start = time.perf_counter()
    made = deriving.derive(source, published.read(source).rules, target, lambda _: None)
    seconds = time.perf_counter() - start
    room = before - free(source)
    shutil.rmtree(target)
    return made, room, seconds


def copied(source: Path, target: Path) -> float:
    """Seconds to write the file's bytes anew and to flush them."""
    start = time.perf_counter()
    with open(source, "rb") as one, open(target, "wb") as other:
        shutil.copyfileobj(one, other, 1 << 22)
        other.flush()
        os.fsync(other.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def free(path: Path) -> int:
    os.sync()
    found = os.statvfs(path)
    return found.f_bfree * found.f_frsize


def file_system(path: Path) -> str:
    """The type of the file system that holds the path."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if path.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2]


def write_published(path: Path, layers: int) -> None:
    """Tensors in the order of Ollama's converter: blocks, then the rest by name."""
    tensors = [writer.new_tensor(name, kind, shape) for name, kind, shape in tensors_of(layers)]
    laid_out = writer.layout(fields(layers), tensors)
    pool = np.random.default_rng(1).bytes(POOL)
    with open(path, "wb") as file:
        file.write(laid_out.header)
        for tensor in laid_out.tensors:
            for _ in range(tensor.size // POOL):
                file.write(pool)
            file.write(pool[: tensor.size % POOL])
            file.write(laid_out.padding(tensor))
        file.flush()
        os.fsync(file.fileno())


def tensors_of(layers: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of each."""
    linear = {"attn_k": (WIDTH, VALUES), "attn_output": (QUERIES, WIDTH), "attn_q": (WIDTH, QUERIES)}
    linear |= {"attn_v": (WIDTH, VALUES), "ffn_gate": (WIDTH, FEED_FORWARD), "ffn_up": (WIDTH, FEED_FORWARD)}
    norms = {"attn_k_norm": HEAD, "attn_q_norm": HEAD, "attn_norm": WIDTH, "ffn_norm": WIDTH}
    norms |= {"post_attention_norm": WIDTH, "post_ffw_norm": WIDTH}
    for layer in range(layers):
        for name, shape in linear.items():
            yield f"blk.{layer}.{name}.weight", "Q4_K", shape
        yield f"blk.{layer}.ffn_down.weight", "Q6_K", (FEED_FORWARD, WIDTH)
        for name, width in norms.items():
            yield f"blk.{layer}.{name}.weight", "F32", (width,)
    yield "mm.mm_input_projection.weight", "F16", (WIDTH, TOWER)
    yield "mm.mm_soft_emb_norm.weight", "F32", (TOWER,)
    yield "output_norm.weight", "F32", (WIDTH,)
    yield "token_embd.weight", "F16", (WIDTH, VOCABULARY)
    square, inner = (TOWER, TOWER), (TOWER, TOWER_FEED_FORWARD)
    parts = {"attn_k": square, "attn_output": square, "attn_q": square, "attn_v": square, "mlp.fc1": inner}
    parts["mlp.fc2"] = inner[::-1]
    for layer in range(TOWER_LAYERS):
        for name, shape in parts.items():
            yield f"v.blk.{layer}.{name}.bias", "F32", shape[1:]
            yield f"v.blk.{layer}.{name}.weight", "F16", shape
        for name in ("layer_norm1", "layer_norm2"):
            for end in ("bias", "weight"):
                yield f"v.blk.{layer}.{name}.{end}", "F32", (TOWER,)
    yield "v.patch_embedding.bias", "F32", (TOWER,)
    yield "v.patch_embedding.weight", "F16", (PATCH, PATCH, 3, TOWER)
    yield "v.position_embedding.weight", "F16", (TOWER, (PICTURE // PATCH) ** 2)
    for end in ("bias", "weight"):
        yield f"v.post_layernorm.{end}", "F32", (TOWER,)


def fields(layers: int) -> dict[str, bytes]:
    text = {"block_count": layers, "context_length": 131072, "embedding_length": WIDTH}
    text |= {"feed_forward_length": FEED_FORWARD, "attention.head_count": 8, "attention.head_count_kv": 4}
    text |= {"attention.key_length": HEAD, "attention.value_length": HEAD, "attention.sliding_window": 1024}
    text |= {"mm.tokens_per_image": 256, "vision.block_count": TOWER_LAYERS, "vision.embedding_length": TOWER}
    text |= {"vision.feed_forward_length": TOWER_FEED_FORWARD, "vision.attention.head_count": 16}
    text |= {"vision.image_size": PICTURE, "vision.patch_size": PATCH}
    reals = {"attention.layer_norm_rms_epsilon": 1e-6, "vision.attention.layer_norm_epsilon": 1e-6}
    reals |= {"rope.global.freq_base": 1e6, "rope.local.freq_base": 1e4}
    tokens = [f"<{number}>" for number in range(VOCABULARY + MORE_TOKENS)]
    return {
        "general.architecture": writer.encode(ValueType.STRING, "gemma3"),
        **{f"gemma3.{key}": writer.encode(ValueType.UINT32, number) for key, number in text.items()},
        **{f"gemma3.{key}": writer.encode(ValueType.FLOAT32, number) for key, number in reals.items()},
        "tokenizer.ggml.model": writer.encode(ValueType.STRING, "llama"),
        "tokenizer.ggml.tokens": writer.encode_array(ValueType.STRING, tokens),
        "tokenizer.ggml.scores": writer.encode_array(ValueType.FLOAT32, [0.0] * len(tokens)),
        "tokenizer.ggml.token_type": writer.encode_array(ValueType.INT32, [1] * len(tokens)),
    }


if __name__ == "__main__":
    main()
