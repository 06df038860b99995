"""How long the small layers of a model take from a distant registry: one after the other, and side by side.

    python benchmarks/pull_layers.py [--layers 6] [--delay 0.1] [--rounds 5]

The registry is a small program here that waits before every answer, as a long line does. Both ways run in turn in the
same session; printed are every run and the ratio of the medians (above 1: side by side is faster).
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from aiohttp import web
from measuring import header

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from corral import names  # noqa: E402
from corral.sources.registry import Encryption, Registry, TransferLimits  # noqa: E402
from corral.store import Store  # noqa: E402
from tests.registry import CONFIG_BYTES, MANIFEST, digest_of, manifest_of, noise  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6, help="of 10 kB each, beside the config")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds before each answer")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(header())
    asyncio.run(compare(arguments.layers, arguments.delay, arguments.rounds))


async def compare(layers: int, delay: float, rounds: int) -> None:
    runner = web.AppRunner(distant_registry(layers, delay))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host = f"127.0.0.1:{runner.addresses[0][1]}"
    in_line, together = [], []
    for number in range(rounds):
        in_line.append(await seconds_of_a_pull(host, TransferLimits(connections=1)))
        together.append(await seconds_of_a_pull(host, TransferLimits()))
        print(f"round {number + 1}: in line {in_line[-1]:.2f} s, side by side {together[-1]:.2f} s", flush=True)
    print(f"ratio: {statistics.median(in_line) / statistics.median(together):.2f}")
    await runner.cleanup()


def distant_registry(layers: int, delay: float) -> web.Application:
    blobs = {f"part{number}": noise(10_000, number) for number in range(layers)}
    by_digest = {digest_of(data): data for data in (*blobs.values(), CONFIG_BYTES)}

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        if "/manifests/" in request.path:
            return web.Response(body=manifest_of(blobs), content_type=MANIFEST)
        data = by_digest[request.path.rpartition("/")[2]]
        wanted = request.http_range
        size = len(data)
        headers = {"Content-Range": f"bytes {wanted.start}-{wanted.stop - 1}/{size}"}
        return web.Response(status=206, body=data[wanted], headers=headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    return app


async def seconds_of_a_pull(host: str, limits: TransferLimits) -> float:
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(docker_config=Path(folder, "none"), key_folder=Path(folder), limits=limits)
        name = names.parse(f"{host}/library/distant")
        start = time.perf_counter()
        async with aclosing(registry.pull(name, Store(Path(folder)), encryption=Encryption.NONE)) as steps:
            async for _ in steps:
                pass
        taken = time.perf_counter() - start
        await registry.close()
        return taken


if __name__ == "__main__":
    main()
