"""How fast a model is quantised, against the bare quantising function on all cores, in one session.

    python benchmarks/quantize.py [--layers 16] [--kinds Q4_K_M Q8_0] [--rounds 3] [--folder FOLDER]

The model has the shape of a Llama with 1.24 billion numbers (16 layers) in F16. One side is `corral.quantize`: it reads
the file, converts, checks, quantises, hashes and writes. The other calls the engine's function alone, in as many
threads, on the same numbers as 32-bit floats in memory, each tensor to the same type, and drops what it returns. It is
`ggml_quantize_chunk` for all types; for Q8_0 Corral itself calls a quicker one. Prints every run and the ratios of the
medians (1: as fast as the function alone). What the folder's disk takes to write as many bytes is printed beside, since
it bounds the quick types: `--folder /dev/shm` leaves it out.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measuring import header

from corral import gguf
from corral.gguf import Tensor, ValueType, writer
from corral.quantize import quantize
from corral.quantize.library import Floats, library

WIDTH, FEED_FORWARD, VALUES, VOCABULARY = 2048, 8192, 512, 128256
POOL = 1 << 25
"""Numbers that the model's tensors are made of, over and over: more than fit into a processor's cache."""
CHUNK = 1 << 20
"""Numbers a thread of the bare side takes at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=["Q4_K_M", "Q8_0"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the models lie; the system's own by default")
    arguments = parser.parse_args()
    print(header())
    pool = (np.random.default_rng(1).standard_normal(POOL, np.float32) * 0.02).astype(np.float16).astype(np.float32)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "source.gguf"
        write_model(source, arguments.layers, pool)
        for kind in arguments.kinds:
            compare(source, kind, arguments.rounds, pool)


def compare(source: Path, kind: str, rounds: int, pool: Floats) -> None:
    threads = len(os.sched_getaffinity(0))
    target = source.with_name("target.gguf")
    whole, bare = [], []
    for number in range(rounds):
        start = time.perf_counter()
        quantize(source, target, kind, threads=threads, report=lambda _: None)
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        quantize_in_memory(source, target, threads, pool)
        bare.append(time.perf_counter() - start)
        written = write_alone(target)
        print(
            f"{kind} round {number + 1}: corral {whole[-1]:.2f} s, function alone {bare[-1]:.2f} s, "
            f"writing alone {written:.2f} s",
            flush=True,
        )
    print(f"{kind}: {statistics.median(bare) / statistics.median(whole):.2f} of the function alone")


def quantize_in_memory(source: Path, target: Path, threads: int, pool: Floats) -> None:
    """What `target` needed of the function, as it would be if nothing else were to be done."""
    native = library()

    def run(kind: str, floats: Floats, row: int) -> None:
        native.from_floats_plainly(
            kind, floats, np.empty(writer.tensor_bytes(kind, (floats.size,)), np.uint8), row, None
        )

    changed = [
        (after.type, before)
        for before, after in zip(gguf.read(source).tensors, gguf.read(target).tensors, strict=True)
        if before.type != after.type
    ]
    with ThreadPoolExecutor(threads) as executor:
        tasks = [
            executor.submit(run, kind, floats, tensor.shape[0])
            for kind, tensor in changed
            for floats in of(tensor, pool)
        ]
        for task in tasks:
            task.result()


def write_alone(target: Path) -> float:
    """Seconds that writing a file as large as `target` takes, which is overwritten."""
    block = os.urandom(CHUNK)
    size = target.stat().st_size
    target.unlink()
    start = time.perf_counter()
    with open(target, "wb", buffering=0) as file:
        for _ in range(0, size, CHUNK):
            file.write(block)
    return time.perf_counter() - start


def of(tensor: Tensor, pool: Floats) -> Iterator[Floats]:
    """A tensor's numbers in chunks."""
    for offset in range(0, tensor.elements, CHUNK):
        begin = offset % POOL
        yield pool[begin : begin + min(CHUNK, tensor.elements - offset)]


def write_model(path: Path, layers: int, pool: Floats) -> None:
    blocks = {
        "attn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, VALUES),
        "attn_v": (WIDTH, VALUES),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (WIDTH, FEED_FORWARD),
        "ffn_up": (WIDTH, FEED_FORWARD),
        "ffn_down": (FEED_FORWARD, WIDTH),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (WIDTH, VOCABULARY)}
    shapes |= {f"blk.{layer}.{name}": shape for layer in range(layers) for name, shape in blocks.items()}
    fields = {
        "general.architecture": writer.encode(ValueType.STRING, "llama"),
        "general.file_type": writer.encode(ValueType.UINT32, 1),
        "llama.block_count": writer.encode(ValueType.UINT32, layers),
        "llama.embedding_length": writer.encode(ValueType.UINT32, WIDTH),
        "llama.attention.head_count": writer.encode(ValueType.UINT32, 32),
        "llama.attention.head_count_kv": writer.encode(ValueType.UINT32, 8),
    }
    tensors = [
        writer.new_tensor(f"{name}.weight", "F16" if len(shape) > 1 else "F32", shape) for name, shape in shapes.items()
    ]
    laid_out = writer.layout(fields, tensors)
    with open(path, "wb") as file:
        file.write(laid_out.header)
        for tensor in laid_out.tensors:
            for floats in of(tensor, pool):
                file.write((floats.astype(np.float16) if tensor.type == "F16" else floats).tobytes())
            file.write(laid_out.padding(tensor))
        print(f"{sum(tensor.elements for tensor in tensors) / 1e9:.2f} billion numbers, {file.tell() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
