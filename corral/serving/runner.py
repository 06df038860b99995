"""A loaded model as the scheduler owns it: its engine, its pool, who uses it and until when it is kept."""

import asyncio
import math
import time
from collections.abc import Callable

from corral.engine.base import Engine, LoadProgress, RunnerSpec
from corral.serving.admission import Pool
from corral.serving.decisions import RunnerState
from corral.serving.traffic import Traffic


class Runner:
    """A loaded model that the scheduler owns. Requests hold it while they are inside `Scheduler.runner`."""

    def __init__(self, spec: RunnerSpec, label: str, keep_alive: float, least_ctx: int) -> None:
        """`least_ctx` is the context length that the request it is loaded for needs, in tokens."""
        self.spec = spec
        self.label = label
        self.least_ctx = least_ctx
        self.engine: Engine
        self.pool = Pool(spec.pool, spec.slots)
        self.traffic = Traffic()
        self.progress = LoadProgress()
        self.held: tuple[tuple[str, int], ...] = ()
        """Bytes on each device, as the engine said."""
        self.keep_alive = keep_alive
        self.expires_at = math.inf
        self.users = 0
        self.draining = False
        self.idle_since = time.monotonic()
        self.load_began = self.load_ended = 0
        """Monotonic nanoseconds."""
        self.loading: asyncio.Task[None] | None = None
        self.check: asyncio.Task[bool] | None = None
        self.closing: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> RunnerState:
        return RunnerState(
            spec=self.spec,
            users=self.users,
            keep_alive=self.keep_alive,
            draining=self.draining,
            loading=self.loading is not None,
            held=self.on_devices,
        )

    @property
    def is_at_work(self) -> bool:
        """Whether requests may come to it, or those that it has are still answered."""
        return not self.draining or (self.users > 0 and self.closing is None)

    @property
    def on_devices(self) -> tuple[tuple[str, int], ...]:
        """Bytes on each device, by its name: as the engine said, before that by the estimate."""
        placement = self.spec.placement
        shares = () if placement is None else placement.shares
        return self.held or tuple((share.device, share.bytes.total) for share in shares)

    @property
    def size_vram(self) -> int:
        """Bytes on all devices together."""
        return sum(size for _, size in self.on_devices)

    @property
    def size(self) -> int:
        """Bytes it takes: what its process holds of main memory, or its parts here and on devices."""
        if self.loading is not None:
            return self.spec.weights_bytes
        placement = self.spec.placement
        return self.size_vram + placement.host if placement and placement.shares else self.engine.memory()

    @property
    def loaded(self) -> int:
        """Bytes of the weights that are in memory while it loads, about."""
        return min(self.progress.loaded(), self.spec.weights_bytes)

    @property
    def waiting(self) -> int:
        """Users that are not served yet: while it loads all but the first, then those without a slot or tokens."""
        return max(0, self.users - 1) if self.loading else max(self.pool.waiting, self.users - self.spec.slots)

    def load_with(self, spec: RunnerSpec) -> None:
        """Changes what a model that loads is loaded with."""
        self.spec = spec
        self.pool = Pool(spec.pool, spec.slots)

    def start_keep_alive_timer(self, seconds: float, expire: Callable[[], None]) -> None:
        """Starts the keep-alive timer anew; `expire` is called after `seconds`, which may be infinite."""
        self.stop_timer()
        self.expires_at = time.time() + seconds
        if seconds < 10 * 365 * 86400:
            self._timer = asyncio.get_running_loop().call_later(seconds, expire)

    def stop_timer(self) -> None:
        self.expires_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
