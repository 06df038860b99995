"""How much memory the bodies of requests may take together, and how slowly they may come. Knows no route.

A body reserves the bytes it announces before it is read, or grows as it comes when it announces none, and again what
its values take. What does not fit waits for its turn. All of it is given back when the request has been answered.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from corral.errors import BodyTooSlow, Busy

SMALL = 1 << 20
"""Bytes up to which a body is small: large ones leave room for such."""

WAIT_SECONDS = 30.0
"""How long a body waits for its turn."""

GRACE_SECONDS = 30.0
"""How long a client may be silent, or take longer than it would at `MIN_RATE`."""

MIN_RATE = 32 << 10
"""Bytes a second that a client has to send on average of a body that is kept in memory."""

FILE_RATE = 1 << 10
"""The same of one that goes to the disk, which may come over any line."""

FILE_GRACE_SECONDS = 120.0
"""How long the client of such a body may be silent."""


class BodyBudget:
    """The bytes that all bodies being read or held may have together. Small ones may use all, large ones seven eighths.

    `wait_seconds`: for a body's turn; `grace_seconds`: how long a client may be silent.
    """

    def __init__(self, total: int, *, wait_seconds: float = WAIT_SECONDS, grace_seconds: float = GRACE_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._grace_seconds = grace_seconds
        self._free = total
        self._for_small = total // 8
        self._waiting: list[_Waiter] = []
        self.most = total - self._for_small
        """Bytes of the largest body that can ever be read."""

    @contextlib.contextmanager
    def lease(self) -> Iterator["Lease"]:
        """A part of the budget for one body: nothing yet, and nothing after the block."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.release()

    def pace(self) -> "Pace":
        """The pace that one client has to keep."""
        return Pace(self._grace_seconds, MIN_RATE)

    async def _reserve(self, lease: "Lease", size: int) -> None:
        missing = size - lease.size
        if size <= SMALL and not self._waiting and missing <= self._free:
            self._free -= missing
            lease.size = size
            return
        waiter = _Waiter(lease, size)
        self._waiting.append(waiter)
        self._grant()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter.granted.wait()
        except TimeoutError:
            raise Busy("too many large requests at once") from None
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._grant()

    def _give_back(self, size: int) -> None:
        self._free += size
        self._grant()

    def _grant(self) -> None:
        """Gives those who wait what there is, in their order. Small bodies may overtake large ones."""
        is_large_blocked = False
        for waiter in list(self._waiting):
            is_large = waiter.size > SMALL
            missing = waiter.size - waiter.lease.size
            if missing > self._free - (self._for_small if is_large else 0) or (is_large and is_large_blocked):
                is_large_blocked |= is_large
                continue
            self._free -= missing
            waiter.lease.size = waiter.size
            self._waiting.remove(waiter)
            waiter.granted.set()


class Lease:
    """The part of a budget that one body has: `size` bytes."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    async def grow(self, size: int) -> None:
        """Waits until the body may have so many bytes in all; `Busy` when that takes too long."""
        if size > self.size:
            await self._budget._reserve(self, size)

    def release(self) -> None:
        """Gives everything back. May be called again."""
        size, self.size = self.size, 0
        self._budget._give_back(size)


class Pace:
    """Bounds the time spent waiting for a client, by how much it has sent; what it sent fast does not count for long.

    `seconds`: how long it may be silent; `rate`: bytes a second on average.
    """

    def __init__(self, seconds: float, rate: float) -> None:
        self._most = self._left = seconds
        self._rate = rate

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """The block waits for the client; `BodyTooSlow` when that takes too long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left):
                yield
        except TimeoutError:
            raise BodyTooSlow from None
        self._left -= loop.time() - began

    def received(self, size: int) -> None:
        """Notes that so many bytes have come."""
        self._left = min(self._left + size / self._rate, self._most)


class _Waiter:
    """A lease that waits until it may have `size` bytes."""

    def __init__(self, lease: Lease, size: int) -> None:
        self.lease = lease
        self.size = size
        self.granted = asyncio.Event()
