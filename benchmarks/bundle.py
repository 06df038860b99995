"""What a bundle costs: to make one of a large model, its size, and its starts beside those of `corral run`.

    python benchmarks/bundle.py MODEL.gguf [--gigabytes 5] [--rounds 3] [--folder FOLDER]

MODEL: a chat model that answers. Of a made-up model of so many gigabytes a bundle is made, with `cp` and `sha256sum` of
the same bytes beside it. A first token is the first byte that is printed; the servers of `corral run` are fresh.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from measuring import header, speed, timed

from corral import bundle, names
from corral.bundle import Runtime
from corral.models import assemble
from corral.store import Layer, MediaType, Store, encode_manifest

NAME = names.parse("measured")
QUESTION = "Say hello."
BRIEF = {"num_predict": 32}
"""A small model may go on and on."""
CORRAL = (sys.executable, "-P", "-m", "corral")
CHUNK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where everything lies; the system's own by default")
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make_large(Path(folder), int(arguments.gigabytes * 1e9))
        starts(Path(folder), arguments.model.absolute(), arguments.rounds)


def make_large(folder: Path, size: int) -> None:
    """Random bytes stand for weights: nothing is compressed, so it makes no difference."""
    store = Store(folder / "large")
    block = os.urandom(CHUNK)
    with store.writer(size) as writer:
        while writer.size < size:
            writer.write(block[: size - writer.size])
        weights = Layer(MediaType.MODEL, writer.commit()[0], size)
    digest, length, _ = store.add_bytes(b"{}")
    store.write_manifest(NAME, encode_manifest(Layer(MediaType.CONFIG, digest, length), (weights,)))
    blob, path = store.blob_path(weights.digest), folder / "large.gguf"
    copied = timed(f"cp {blob} {path} && sync {path} && sha256sum {path}")
    path.unlink()
    runtime = Runtime({}, {"code": "", "targets": [], "sha256": {}})
    before, begin = written(), time.perf_counter()
    bundle.write(NAME, store, runtime, path, lambda _: None)
    seconds = time.perf_counter() - begin
    shared = "" if (now := written()) is None or before is None else f", {now - before} bytes written"
    print(f"bundle of {size / 1e9:g} GB: {seconds:.1f} s, {speed(size, seconds)}{shared}")
    print(f"cp, sync and sha256sum of the same: {copied:.1f} s, {speed(size, copied)}")
    shutil.rmtree(folder / "large")
    path.unlink()


def written() -> int | None:
    """Bytes that this process has caused to be written to disks; None where the system does not say."""
    with suppress(OSError):
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    return None


def starts(folder: Path, model: Path, rounds: int) -> None:
    store = Store(folder / "models")
    assemble.write_model(NAME, assemble.assemble({"model.gguf": model}, store, link=False, parameters=BRIEF), store)
    variables = {
        **os.environ,
        "OLLAMA_MODELS": str(store.root),
        "CORRAL_HOME": str(folder / "home"),
        "CORRAL_STATE": str(folder / "state"),
        "CORRAL_BUNDLES": str(folder / "cache"),
    }
    for form, flags in (("full", ()), ("light", ("--light",))):
        path = folder / f"{form}.gguf"
        begin = time.perf_counter()
        command = [*CORRAL, "bundle", str(NAME), "-o", str(path), *flags]
        subprocess.run(command, env=variables, check=True, stderr=subprocess.DEVNULL)
        seconds, beside = time.perf_counter() - begin, path.stat().st_size - model.stat().st_size
        print(f"{form} form: {beside / 1e6:.2f} MB beside the weights, made in {seconds:.1f} s with pip")
        firsts, laters = [], []
        for _ in range(rounds):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            firsts.append(first_token([sys.executable, str(path), QUESTION], variables))
            laters.append(first_token([sys.executable, str(path), QUESTION], variables))
        show(f"{form} form, first start to the first token", firsts)
        show(f"{form} form, later start to the first token", laters)
    show("`corral run` without a server to the first token", [run_fresh(variables) for _ in range(rounds)])


def run_fresh(variables: Mapping[str, str]) -> float:
    """A server that ends itself after a second without work, at an address of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**variables, "OLLAMA_HOST": address, "CORRAL_IDLE_EXIT": "1s", "OLLAMA_KEEP_ALIVE": "0"}
    return first_token([*CORRAL, "run", str(NAME), QUESTION], environment)


def first_token(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Seconds until a command prints its first byte; it runs to its end."""
    begin = time.perf_counter()
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - begin
        process.stdout.read()
    if not first or process.returncode:
        raise SystemExit(f"{command} failed")
    return seconds


def show(what: str, seconds: Sequence[float]) -> None:
    listed = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"{what}: median {statistics.median(seconds):.2f} s ({listed})")


if __name__ == "__main__":
    main()
