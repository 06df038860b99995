"""Converting a safetensors folder against copying its bytes: MB/s of `corral.convert`, and of `cp` with `sha256sum`.

The folder is a synthetic Llama of the size that is asked for, in the page cache. Both read, write and hash every byte;
a conversion rearranges and checks them, too.

    python benchmarks/convert.py [--size GIGABYTES] [--dtype BF16|F16|F32] [--folder WHERE]
"""

import argparse
import json
import resource
import shlex
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from measuring import header, speed, timed

from corral.convert import convert

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.reference.folders import write_bpe
from tests.reference.models import CASES
from tests.reference.shapes import SHAPES
from tests.safetensors_bytes import write

WIDTH, FEED_FORWARD, VOCABULARY, SHARDS = 2048, 5632, 32000, 3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", type=float, default=1.2, help="gigabytes of safetensors")
    arguments.add_argument("--dtype", choices=("BF16", "F16", "F32"), default="BF16")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where the files are made; a temporary folder without it")
    given = arguments.parse_args()
    print(header(), end="\n\n")
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        run(Path(place), given.size, given.dtype, given.rounds)


def run(place: Path, gigabytes: float, dtype: str, rounds: int) -> None:
    folder = place / "checkpoint"
    with ProcessPoolExecutor(1, get_context("spawn")) as process:  # children count the memory of their parent as theirs
        process.submit(synthetic, folder, gigabytes, dtype).result()
    weights = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights)
    print(f"{size / 1e9:.2f} GB of {dtype} in {len(weights)} files")
    for number in range(rounds):
        copy, target = place / f"copy-{number}", place / f"model-{number}.gguf"
        copying = timed(f"cat {shlex.join(map(str, weights))} > {copy} && sha256sum {copy}")
        copy.unlink()
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            before, peak, converting = process.submit(converted, folder, target).result()
        print(f"copy and hash {speed(size, copying)}, convert {speed(size, converting)}", end=": ")
        print(f"ratio {copying / converting:.2f}; {before} MiB of memory at the start, {peak} at the most")
        target.unlink()


def converted(folder: Path, target: Path) -> tuple[int, int, float]:
    """MiB of memory before, and at the most; seconds of the conversion."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    start = time.perf_counter()
    convert({file.name: file for file in folder.iterdir()}, target, report=lambda step: None)
    seconds = time.perf_counter() - start
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, seconds


def synthetic(folder: Path, gigabytes: float, dtype: str) -> None:
    """A Llama of random weights, in a few files."""
    width = 4 if dtype == "F32" else 2
    layer = (2 * WIDTH * WIDTH + 2 * WIDTH * WIDTH // 4 + 3 * WIDTH * FEED_FORWARD) * width
    layers = max(1, round((gigabytes * 1e9 - 2 * VOCABULARY * WIDTH * width) / layer))
    config = {
        **CASES[0].config,
        "hidden_size": WIDTH,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": layers,
        "intermediate_size": FEED_FORWARD,
        "vocab_size": VOCABULARY,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_bpe(folder)
    shapes = list(SHAPES["LlamaForCausalLM"](config))
    pool = np.random.default_rng(0).normal(0, 0.02, 1 << 24).astype(np.float32)
    for number in range(SHARDS):
        tensors = {name: np.resize(pool, shape) for name, shape in shapes[number::SHARDS]}
        write(folder / f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors", tensors, dtype)


if __name__ == "__main__":
    main()
