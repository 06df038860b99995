"""What deciding who may pass costs a request: without a key, with a word in its place, and with a key among many.

    python benchmarks/access.py

Nothing of it is done per token. All of a short request, from the socket to the answer, takes some hundreds of them.
"""

import asyncio
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from corral.access.audit import AuditLog
from corral.access.file import KeyFile
from corral.access.keys import Wish
from corral.server.http.access import Access
from corral.server.http.needs import ASK

ROUNDS = 20_000
HEADERS = [(name, b"x" * 20) for name in (b"host", b"user-agent", b"accept", b"content-type", b"content-length")]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = KeyFile(Path(folder))
        _, secret = file.add(Wish(name="first"))
        one = Access(file, AuditLog(Path(folder)), is_needed=False, is_local=True)
        for number in range(99):
            file.add(Wish(name=f"k{number}"))
        hundred = Access(file, AuditLog(Path(folder)), is_needed=True, is_local=False)
        print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {ROUNDS} rounds")
        await report("no key sent, none needed", one, [])
        await report("a word in its place", one, [(b"authorization", b"Bearer ollama")])
        await report("a key, among 100", hundred, [(b"authorization", f"Bearer {secret}".encode())])


async def report(what: str, access: Access, more: list[tuple[bytes, bytes]]) -> None:
    """The median of five runs, in microseconds a request."""
    times = sorted([await run(access, more) for _ in range(5)])
    print(f"{what:<26} {times[2] / ROUNDS * 1e6:6.2f} µs")


async def run(access: Access, more: list[tuple[bytes, bytes]]) -> float:
    began = time.process_time()
    for _ in range(ROUNDS):
        scope: dict[str, Any] = {"headers": [*HEADERS, *more], "method": "POST", "path": "/api/chat"}
        await access.admit(scope, ASK)
        access.record(scope, ASK, "done", None)
    return time.process_time() - began


if __name__ == "__main__":
    asyncio.run(main())
