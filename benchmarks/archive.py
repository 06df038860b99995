"""How fast a model goes into an archive and out of it, against `cp` and `sha256sum` of the same bytes, in one session.

    python benchmarks/archive.py [--megabytes 1000] [--rounds 3]

Prints every run and the ratios of the medians (above 1: faster than `cp FILE COPY && sha256sum COPY`). Both ways read,
hash and write every byte; ours also waits until they are on the disk, which is measured for `cp` as well.
"""

import argparse
import asyncio
import random
import shlex
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from measuring import header, speed, timed

from corral import names
from corral.messages import Progress
from corral.sources import archive
from corral.store import Layer, MediaType, Store, encode_manifest

NAME = names.parse("big")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where stores and archives lie; the system's own by default")
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        compare(Path(folder), arguments.megabytes * 1_000_000, arguments.rounds)


def compare(folder: Path, size: int, rounds: int) -> None:
    store = Store(folder / "store")
    blob = add_big_model(store, size)
    copying, flushing, exporting, importing = [], [], [], []
    for number in range(rounds):
        copy, file, other = folder / "copy", folder / "big.tar", folder / "other"
        copied = shlex.join(["cp", str(blob), str(copy)])
        hashed = shlex.join(["sha256sum", str(copy)])
        copying.append(timed(f"{copied} && {hashed}"))
        copy.unlink()
        flushing.append(timed(f"{copied} && sync {copy} && {hashed}"))
        copy.unlink()
        exporting.append(run(archive.export([NAME], store, file)))
        importing.append(run(archive.import_(file, Store(other))))
        file.unlink()
        shutil.rmtree(other)
        print(
            f"round {number + 1}: cp + sha256sum {speed(size, copying[-1])}, with sync {speed(size, flushing[-1])}, "
            f"export {speed(size, exporting[-1])}, import {speed(size, importing[-1])}",
            flush=True,
        )
    base = statistics.median(copying)
    print(f"export: {base / statistics.median(exporting):.2f} of cp + sha256sum")
    print(f"import: {base / statistics.median(importing):.2f} of cp + sha256sum")


def add_big_model(store: Store, size: int) -> Path:
    """A model of one layer that no disk or file system can shrink."""
    block = random.Random(1).randbytes(1_000_000)
    with store.writer(size) as writer:
        for number in range(size // len(block)):
            writer.write(number.to_bytes(8, "big") + block[8:])
        digest, _ = writer.commit()
    config, config_size, _ = store.add_bytes(b"{}")
    layer = Layer(MediaType.MODEL, digest, store.blob_size(digest))
    store.write_manifest(NAME, encode_manifest(Layer(MediaType.CONFIG, config, config_size), (layer,)))
    return store.blob_path(digest)


def run(steps: AsyncGenerator[Progress, None]) -> float:
    async def drain() -> None:
        async with aclosing(steps):
            async for _ in steps:
                pass

    start = time.perf_counter()
    asyncio.run(drain())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
