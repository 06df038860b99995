"""How fast a blob is pulled from a local registry, against `curl | sha256sum`: the same bytes, in the same session.

    python benchmarks/pull.py [--megabytes 1000] [--rounds 3]

Needs Debian's docker-registry and curl. Prints every run, the ratio of the medians (above 1: faster than curl), and by
how much our process grew. The pull also writes the blob to the disk; curl does not.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from measuring import header, speed, timed

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from corral import names  # noqa: E402
from corral.sources.registry import Encryption, Registry  # noqa: E402
from corral.store import Store  # noqa: E402
from tests.registry import RegistryServer, manifest_of, noise, running_registry  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where registry and store lie; the system's own by default")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "STORE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        asyncio.run(pull(*arguments.child))
        return
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, running_registry(Path(folder, "r")) as server:
        compare(server, Path(folder), arguments.megabytes * 1_000_000, arguments.rounds)


def compare(server: RegistryServer, folder: Path, size: int, rounds: int) -> None:
    digest = put_big_model(server, folder, size)
    url = f"{server.url}/v2/library/big/blobs/{digest}"
    ours, theirs, openssl, growth = [], [], [], []
    for number in range(rounds):
        theirs.append(timed(f"curl -s {url} | sha256sum"))
        seconds, grown = pull_in_child(server, folder / f"store{number}")
        ours.append(seconds)
        growth.append(grown)
        openssl.append(timed(f"curl -s {url} | openssl dgst -sha256"))
        print(f"round {number + 1}: curl | sha256sum {speed(size, theirs[-1])}, pull {speed(size, ours[-1])}, ", end="")
        print(f"curl | openssl dgst {speed(size, openssl[-1])}, memory +{grown / 1e6:.0f} MB", flush=True)
    print(f"ratio to curl | sha256sum:    {statistics.median(theirs) / statistics.median(ours):.2f}")
    print(f"ratio to curl | openssl dgst: {statistics.median(openssl) / statistics.median(ours):.2f}")
    print(f"memory growth of our process: {max(growth) / 1e6:.0f} MB at most")


def put_big_model(server: RegistryServer, folder: Path, size: int) -> str:
    """A model of one layer; the file takes the same way into the registry as any other."""
    block = noise(1_000_000, 1)
    data = b"".join(number.to_bytes(8, "big") + block[8:] for number in range(size // len(block)))
    manifest = manifest_of({"model": data})
    server.put_model("library/big", "latest", model=data)
    assert server.manifest("library/big", "latest") == manifest
    return str(json.loads(manifest)["layers"][0]["digest"])


def pull_in_child(server: RegistryServer, store: Path) -> tuple[float, int]:
    command = [sys.executable, __file__, "--child", f"{server.host}/library/big", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, growth = done.stdout.split()
    subprocess.run(["rm", "-r", str(store)], check=True)
    return float(seconds), int(growth)


async def pull(name: str, store: str) -> None:
    """Prints the seconds it took, and by how many bytes the process grew at most."""
    registry = Registry(docker_config=Path(store, "none"), key_folder=Path(store))
    before = memory("VmRSS")
    start = time.perf_counter()
    async with aclosing(registry.pull(names.parse(name), Store(Path(store)), encryption=Encryption.NONE)) as steps:
        async for _ in steps:
            pass
    print(time.perf_counter() - start, memory("VmHWM") - before)
    await registry.close()


def memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
