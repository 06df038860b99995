"""Which models are loaded. `decide` is pure; the `Scheduler` around it waits, loads, reuses, evicts and keeps alive.

A request asks for a runner by its specification. One that is loaded and will do is handed over at once; the rest wait
in one line, strictly in order, and one model is loaded at a time. Knows no model's meaning, no prompt and no dialect;
everything runs on one event loop, which makes this module the only writer of its state. Source: spec cli §11.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from corral.admission import Pool
from corral.devices import Memory
from corral.engine.base import Engine, RunnerSpec
from corral.errors import Busy, CorralError, OutOfMemory

log = logging.getLogger(__name__)

OVERHEAD = 64 << 20
"""Bytes a worker needs besides weights and cache: code, compute buffers."""

SHARE = 0.8
"""Part of the available memory that a new model may take."""

CONTEXT_TIERS = (32768, 4096)
"""What an automatic context falls back to, one step, when memory does not suffice."""

MODELS_PER_GPU = 3
"""Models kept loaded for each GPU, and without one (spec cli §11)."""

PING_AFTER = 10.0
"""Seconds of idleness after which a runner is asked whether it still answers before it is used."""


class Limits(Struct, frozen=True, kw_only=True):
    """What the configuration allows. `max_loaded` counts models, 0: by the GPUs; `max_queue` waiting requests."""

    max_loaded: int = 0
    max_queue: int = 512
    pool_contexts: int = 4
    keep_alive: float = 300.0


class RunnerState(Struct, frozen=True, kw_only=True):
    """What `decide` sees of a loaded model. `keep_alive` in seconds."""

    spec: RunnerSpec
    users: int = 0
    keep_alive: float = 300.0
    draining: bool = False
    loading: bool = False


class Reuse(Struct, frozen=True):
    """Take the runner at this place of the list."""

    index: int


class Start(Struct, frozen=True):
    """Load the model so; the pool's size is settled."""

    spec: RunnerSpec


class Evict(Struct, frozen=True):
    """Unload the runner at this place, after its users have finished; then decide again."""

    index: int
    reason: str


class Wait(Struct, frozen=True):
    """Decide again when a load or an unload has ended."""


Decision: TypeAlias = Reuse | Start | Evict | Wait


def decide(wanted: RunnerSpec, loaded: Sequence[RunnerState], memory: Memory, limits: Limits) -> Decision:
    """What to do for a request that wants `wanted`.

    1. The model is loaded: reuse it when it will do, else evict it.
    2. A load is under way, or a runner is on its way out: wait.
    3. As many models are loaded as may be, or memory does not suffice beside the others: evict one.
    4. Otherwise start it, with as large a pool as memory allows, but never less than one context.
    """
    for index, state in enumerate(loaded):
        if same_model(wanted, state.spec):
            if state.draining:
                return Wait()
            return Reuse(index) if will_do(wanted, state.spec) else Evict(index, "it is wanted with other options")
    if any(state.loading or state.draining for state in loaded):
        return Wait()
    if loaded and len(loaded) >= (limits.max_loaded or MODELS_PER_GPU * max(1, len(memory.gpus))):
        return Evict(victim(loaded), "as many models are loaded as may be")
    room = int(memory.available * SHARE) - wanted.weights_bytes - OVERHEAD
    if loaded and room < wanted.num_ctx * wanted.cache_bytes_per_token:
        return Evict(victim(loaded), "memory does not suffice for another model beside it")
    return Start(msgspec.structs.replace(wanted, pool=pool_size(wanted, room, limits.pool_contexts)))


def same_model(one: RunnerSpec, other: RunnerSpec) -> bool:
    """Whether both are the same weights in the same use: names do not matter, and embedding is another use."""
    return (one.model, one.mode, one.pooling) == (other.model, other.mode, other.pooling)


def will_do(wanted: RunnerSpec, loaded: RunnerSpec) -> bool:
    """Whether a loaded model can serve a request: never reload to shrink, and not for what nobody asked for."""
    fixed = ("projectors", "adapters", "main_gpu", "use_mmap", "num_thread", "draft_num_predict", "num_batch")
    if any(getattr(wanted, name) not in (None, (), 0, getattr(loaded, name)) for name in fixed):
        return False
    if (wanted.projectors, wanted.adapters) != (loaded.projectors, loaded.adapters):
        return False
    if 0 <= wanted.num_gpu != loaded.num_gpu:
        return False
    return wanted.num_ctx_automatic or wanted.num_ctx <= loaded.num_ctx


def victim(loaded: Sequence[RunnerState]) -> int:
    """Whom to unload: the shortest-lived, and among these an idle one, else the first."""
    order = sorted(range(len(loaded)), key=lambda index: (loaded[index].keep_alive, loaded[index].spec.model))
    return next((index for index in order if loaded[index].users == 0), order[0])


def pool_size(spec: RunnerSpec, room: int, contexts: int) -> int:
    """Tokens of the shared KV cache: so many full contexts, fewer when `room` bytes do not hold them, at least one."""
    contexts = min(max(1, contexts), spec.slots)
    if spec.cache_bytes_per_token > 0:
        fitting = max(0, room) // (spec.cache_bytes_per_token * spec.num_ctx)
        contexts = max(1, min(contexts, fitting))
    return contexts * spec.num_ctx


class Runner:
    """A loaded model that the scheduler owns. Users get it from `Scheduler.runner` and give it back by leaving."""

    def __init__(self, spec: RunnerSpec, label: str) -> None:
        self.spec = spec
        self.label = label
        self.engine: Engine
        self.pool = Pool(spec.pool, spec.slots)
        self.loading: asyncio.Task[None] | None = None
        self.keep_alive = 300.0
        self.expires_at = math.inf
        self.users = 0
        self.draining = False
        self.idle_since = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> RunnerState:
        return RunnerState(
            spec=self.spec,
            users=self.users,
            keep_alive=self.keep_alive,
            draining=self.draining,
            loading=self.loading is not None,
        )

    def keep_until_idle_for(self, seconds: float, expire: Callable[[], None]) -> None:
        """Starts the keep-alive clock anew; `expire` is called when it runs out."""
        self.stop_clock()
        self.expires_at = time.time() + seconds
        if seconds < 10 * 365 * 86400:
            self._timer = asyncio.get_running_loop().call_later(seconds, expire)

    def stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Ticket:
    """A request that waits for a runner."""

    def __init__(self, spec: RunnerSpec, label: str, keep_alive: float | None) -> None:
        self.spec = spec
        self.label = label
        self.keep_alive = keep_alive
        self.granted: asyncio.Future[Runner] = asyncio.get_running_loop().create_future()


class Events(Struct, frozen=True):
    """Whom to tell of loads and evictions; metrics listen here."""

    loaded: Callable[[str, float], None] = lambda label, seconds: None
    evicted: Callable[[str, str], None] = lambda label, reason: None
    unloaded: Callable[[str], None] = lambda label: None


class Scheduler:
    """The loaded models of one server. `launch` loads one; `memory` tells what is free now."""

    def __init__(
        self,
        launch: Callable[[RunnerSpec, str], Coroutine[Any, Any, Engine]],
        memory: Callable[[], Memory],
        limits: Limits,
        events: Events = Events(),  # noqa: B008 - frozen
    ) -> None:
        self._launch = launch
        self._memory = memory
        self._limits = limits
        self._events = events
        self._runners: list[Runner] = []
        self._waiting: deque[_Ticket] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    @property
    def runners(self) -> Sequence[Runner]:
        """The loaded models and the one being loaded, as they are now."""
        return tuple(self._runners)

    @property
    def queued(self) -> int:
        """Requests that wait, for a model or for room in one."""
        return len(self._waiting) + sum(runner.pool.waiting for runner in self._runners)

    @contextlib.asynccontextmanager
    async def runner(
        self, spec: RunnerSpec, label: str, keep_alive: float | None = None
    ) -> AsyncGenerator[Runner, None]:
        """A runner for `spec`, counted as used until the block is left.

        `label` is the model's name for people. `keep_alive` replaces the runner's when given, in seconds.
        `Busy` when too many wait; errors of loading are those of the engine. Leaving while waiting gives up the place.
        """
        if self.queued >= self._limits.max_queue:
            raise Busy("server busy, please try again.  maximum pending requests exceeded")
        runner = await self._acquire(_Ticket(spec, label, keep_alive))
        try:
            yield runner
        finally:
            self._release(runner)

    async def _acquire(self, ticket: _Ticket) -> Runner:
        self._waiting.append(ticket)
        self._advance(ticket)
        try:
            runner = await ticket.granted
        except asyncio.CancelledError:
            self._give_up(ticket)
            raise
        try:
            if runner.loading is not None:
                await self._loaded(runner)
            if time.monotonic() - runner.idle_since > PING_AFTER and runner.users == 1:
                await self._ping(runner)
        except BaseException:
            self._release(runner)
            raise
        return runner

    async def _loaded(self, runner: Runner) -> None:
        assert runner.loading is not None
        try:
            await asyncio.shield(runner.loading)
        except asyncio.CancelledError:
            if runner.users == 1 and runner.loading is not None:
                runner.loading.cancel()  # nobody else wants it
            raise

    async def _ping(self, runner: Runner) -> None:
        if not await runner.engine.healthy():
            self._discard(runner, "it does not answer")
            raise CorralError(f'model "{runner.label}" did not answer and was unloaded; please try again')

    def _give_up(self, ticket: _Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
            self._release(ticket.granted.result())
        self._advance()

    def _advance(self, newcomer: _Ticket | None = None) -> None:
        """Serves the line as far as it goes; a newcomer whose model is ready need not stand in it."""
        if newcomer is not None and (found := self._ready_for(newcomer.spec)) is not None:
            self._waiting.remove(newcomer)
            self._grant(newcomer, found)
        while self._waiting and not self._closing:
            ticket = self._waiting[0]
            states = [runner.state for runner in self._runners]
            match decide(ticket.spec, states, self._memory(), self._limits):
                case Reuse(index):
                    self._waiting.popleft()
                    self._grant(ticket, self._runners[index])
                case Start(spec):
                    self._waiting.popleft()
                    self._grant(ticket, self._start(spec, ticket.label))
                case Evict(index, reason):
                    self._evict(self._runners[index], reason)
                    return
                case Wait():
                    return

    def _ready_for(self, spec: RunnerSpec) -> Runner | None:
        for runner in self._runners:
            if same_model(spec, runner.spec) and not runner.draining and will_do(spec, runner.spec):
                return runner
        return None

    def _grant(self, ticket: _Ticket, runner: Runner) -> None:
        runner.users += 1
        runner.stop_clock()
        runner.expires_at = math.inf
        if ticket.keep_alive is not None:
            runner.keep_alive = ticket.keep_alive
        if not ticket.granted.done():
            ticket.granted.set_result(runner)

    def _release(self, runner: Runner) -> None:
        runner.users -= 1
        if runner.users > 0 or runner not in self._runners:
            return
        runner.idle_since = time.monotonic()
        if runner.draining or runner.keep_alive <= 0:
            self._unload(runner)
        elif runner.loading is None:
            runner.keep_until_idle_for(runner.keep_alive, lambda: self._unload(runner))

    def _start(self, spec: RunnerSpec, label: str) -> Runner:
        runner = Runner(spec, label)
        runner.keep_alive = self._limits.keep_alive
        self._runners.append(runner)
        runner.loading = self._task(self._load(runner))
        return runner

    async def _load(self, runner: Runner) -> None:
        began = time.monotonic()
        try:
            runner.engine = await self._launch_with_fallback(runner)
        except BaseException as error:
            runner.loading = None
            if runner in self._runners:
                self._runners.remove(runner)
            log.warning("model %s could not be loaded: %s", runner.label, error or type(error).__name__)
            asyncio.get_running_loop().call_soon(self._advance)
            raise
        runner.loading = None
        seconds = time.monotonic() - began
        log.info("model %s loaded in %.2f s, context %d", runner.label, seconds, runner.spec.num_ctx)
        self._events.loaded(runner.label, seconds)
        self._task(self._watch(runner, runner.engine))
        if runner.users == 0:
            self._release_idle(runner)
        self._advance()

    def _release_idle(self, runner: Runner) -> None:
        """For a load that ended when nobody waited for it any more."""
        runner.users = 1
        self._release(runner)

    async def _launch_with_fallback(self, runner: Runner) -> Engine:
        """One more try when memory did not suffice: with one context of the next tier, or without the other models."""
        try:
            return await self._launch(runner.spec, runner.label)
        except OutOfMemory:
            smaller = _smaller(runner.spec)
            idle = [other for other in self._runners if other is not runner and other.users == 0]
            if smaller is None and not idle:
                raise
            for other in idle:
                self._evict(other, "memory did not suffice to load another model")
            if self._tasks:
                await asyncio.gather(*(self._stopped(other) for other in idle))
        if smaller is not None:
            log.warning("model %s: not enough memory, trying a context of %d", runner.label, smaller.num_ctx)
            runner.spec = smaller
            runner.pool = Pool(smaller.pool, smaller.slots)
        return await self._launch(runner.spec, runner.label)

    async def _stopped(self, runner: Runner) -> None:
        while runner in self._runners:
            await runner.engine.ended()
            await asyncio.sleep(0)

    async def _watch(self, runner: Runner, engine: Engine) -> None:
        """Forgets a runner whose engine ended by itself, so that the next request starts a new one."""
        reason = await engine.ended()
        if runner in self._runners and not runner.draining:
            log.error("model %s ended unexpectedly: %s", runner.label, reason)
            self._discard(runner, reason)

    def _evict(self, runner: Runner, reason: str) -> None:
        if runner.draining:
            return
        log.info("model %s is evicted: %s", runner.label, reason)
        self._events.evicted(runner.label, reason)
        if runner.users == 0 and runner.loading is None:
            self._unload(runner)
        else:
            runner.draining = True

    def expire(self, weights: str) -> None:
        """Unloads what runs on these weights as soon as nobody uses it; nothing happens when it is not loaded."""
        for runner in self._runners:
            if runner.spec.model == weights:
                runner.keep_alive = 0
                if runner.users == 0 and runner.loading is None:
                    self._unload(runner)

    def _unload(self, runner: Runner) -> None:
        runner.stop_clock()
        if runner not in self._runners or runner.loading is not None:
            return
        runner.draining = True
        self._task(self._close(runner))

    def _discard(self, runner: Runner, reason: str) -> None:
        log.warning("model %s is given up: %s", runner.label, reason)
        self._unload(runner)

    async def _close(self, runner: Runner) -> None:
        try:
            await runner.engine.close()
        finally:
            if runner in self._runners:
                self._runners.remove(runner)
            log.info("model %s unloaded", runner.label)
            self._events.unloaded(runner.label)
            self._advance()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waits; with nobody left there is nobody to tell

    async def close(self) -> None:
        """Ends every runner, also those that load; whoever waits is told that the server stops."""
        self._closing = True
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.granted.done():
                ticket.granted.set_exception(Busy("the server is stopping"))
        loads = [runner.loading for runner in self._runners if runner.loading is not None]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        for runner in self._runners:
            runner.stop_clock()
            runner.draining = True
        engines = [runner.engine.close() for runner in self._runners]
        self._runners.clear()
        await asyncio.gather(*engines, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _smaller(spec: RunnerSpec) -> RunnerSpec | None:
    """The same model with one context of the next tier when nobody asked for its length, or with a smaller pool."""
    if spec.num_ctx_automatic:
        for tier in CONTEXT_TIERS:
            if tier < spec.num_ctx:
                return msgspec.structs.replace(spec, num_ctx=tier, pool=tier)
    return msgspec.structs.replace(spec, pool=spec.num_ctx) if spec.pool > spec.num_ctx else None
