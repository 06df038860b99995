"""Which models are loaded: the `Scheduler` waits, loads, reuses, evicts and keeps alive, as `decisions.py` decides.

A request asks for a runner by its specification. A loaded model that can serve it is handed over at once; other
requests wait in one queue, strictly in order, and one model is loaded at a time. Knows no model's meaning, no prompt
and no dialect. Everything runs on one event loop, so this module is the only writer of its state. Source: spec cli §11.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from corral.engine.base import Engine, LoadProgress, RunnerSpec
from corral.engine.load_options import can_serve, same_model
from corral.errors import EngineDied, EngineError, QueueFull, ServerStopping
from corral.machine.memory import Memory
from corral.messages import AnswerProgress
from corral.serving.decisions import (
    Evict,
    Reuse,
    SchedulerLimits,
    Start,
    Wait,
    can_widen,
    decide,
    is_longer,
)
from corral.serving.figures import Figures
from corral.serving.loading import WITHOUT_GPU_SECONDS, Loads
from corral.serving.place import Place
from corral.serving.runner import Runner

log = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_SECONDS = 3.0
"""How long writing conversations to disk may hold up the end of a model."""


class _Ticket:
    """A request that waits for a runner."""

    def __init__(self, spec: RunnerSpec, label: str, keep_alive: float | None) -> None:
        self.spec = spec
        self.label = label
        self.keep_alive = keep_alive
        self.grows = False
        """Whether the model was loaded with a context that is too short for this request."""
        self.granted: asyncio.Future[Runner] = asyncio.get_running_loop().create_future()


class SchedulerEvents(Struct, frozen=True):
    """What is called at a load (label, seconds) and at an eviction (label, reason); metrics count them."""

    loaded: Callable[[str, float], None] = lambda label, seconds: None
    evicted: Callable[[str, str], None] = lambda label, reason: None


class Scheduler:
    """The loaded models of one server.

    `launch` loads one, given its label and what is to say how far that is; `memory` returns what is free now.
    """

    def __init__(
        self,
        launch: Callable[[RunnerSpec, str, LoadProgress], Coroutine[Any, Any, Engine]],
        memory: Callable[[], Memory],
        limits: SchedulerLimits,
        events: SchedulerEvents = SchedulerEvents(),  # noqa: B008 - frozen
        look: Callable[[Mapping[str, int]], Awaitable[None]] | None = None,
        figures: Figures | None = None,
    ) -> None:
        """`look` asks the devices anew before a load, given what our models hold of each; `figures`: what earlier loads
        taught about estimates."""
        self._memory = memory
        self._limits = limits
        self._events = events
        self._look = look
        self._loads = Loads(launch, memory, limits, figures or Figures(), self._make_room)
        self._short: set[str] = set()
        """Models whose pools were too small for their users."""
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
        """How many requests wait, for a model or for room in one."""
        return len(self._waiting) + sum(runner.waiting for runner in self._runners)

    @contextlib.asynccontextmanager
    async def runner(
        self, spec: RunnerSpec, label: str, keep_alive: float | None = None, place: Place | None = None
    ) -> AsyncGenerator[Runner, None]:
        """A runner for `spec`, counted as used until the block is left.

        `label` is the model's name in logs and metrics. `keep_alive` replaces the runner's when given, in seconds.
        `QueueFull` when too many requests wait, `ServerStopping`; errors of loading are those of the engine. Cancelling
        a wait gives up the place in the queue; a load that no request waits for any more is cancelled.
        `place` shows what it waits for.
        """
        runner = await self._acquire(spec, label, keep_alive, place or Place())
        try:
            yield runner
        finally:
            self._release(runner)

    async def _acquire(self, spec: RunnerSpec, label: str, keep_alive: float | None, place: Place) -> Runner:
        """Waits for a runner that works; one that turns out not to is replaced, once."""
        for is_retry in (False, True):
            if self._look is not None and self._ready_for(spec) is None:
                await self._look(self._held())
            ticket = _Ticket(spec, label, keep_alive)
            with place.waits(partial(self._ahead, ticket)):
                runner = await self._wait_in_queue(ticket, is_retry)
            try:
                with place.waits(partial(self._load_of, runner)):
                    works = await self._works(runner, spec)
                if works:
                    return runner
            except BaseException:
                self._release(runner)
                raise
            self._release(runner)
        raise EngineDied(f'model "{label}" ended as soon as it was loaded; see its log')

    def _ahead(self, ticket: _Ticket) -> AnswerProgress:
        return AnswerProgress("queued", ahead=self._waiting.index(ticket) if ticket in self._waiting else 0)

    def _load_of(self, runner: Runner) -> AnswerProgress | None:
        if runner.loading is None:
            return None
        if runner.progress.preparing is not None:
            return AnswerProgress("preparing", *runner.progress.preparing)
        return AnswerProgress("loading", runner.loaded, runner.spec.weights_bytes)

    async def _wait_in_queue(self, ticket: _Ticket, is_retry: bool) -> Runner:
        """Waits for a runner, at the front when `is_retry`; `QueueFull` when the queue is full and none is ready."""
        if self._closing:
            raise ServerStopping
        if is_retry:
            self._waiting.appendleft(ticket)
        else:
            self._waiting.append(ticket)
        self._advance(ticket)
        served_at_once = ticket.granted.done() and ticket.granted.result().waiting == 0
        if self.queued > self._limits.max_queue and not is_retry and not served_at_once:
            self._give_up(ticket)
            raise QueueFull
        try:
            return await ticket.granted
        except asyncio.CancelledError:
            self._give_up(ticket)
            raise

    async def _works(self, runner: Runner, spec: RunnerSpec) -> bool:
        """Waits until the runner is loaded, and pings it after a long idle time; false: another one is needed."""
        if (loading := runner.loading) is not None:
            await asyncio.wait({loading})
            if loading.cancelled():
                raise ServerStopping
            loading.result()
        idle = time.monotonic() - runner.idle_since > self._limits.ping_after and runner.users == 1
        if idle and runner.check is None and runner.closing is None:
            runner.check = self._task(runner.engine.healthy())
            runner.check.add_done_callback(lambda check: self._checked(runner, check))
        if runner.check is not None:
            await asyncio.wait({runner.check})
        return runner.closing is None and can_serve(spec, runner.spec)

    def _checked(self, runner: Runner, check: asyncio.Task[bool]) -> None:
        runner.check = None
        if check.cancelled() or check.exception() is not None or not check.result():
            self._discard(runner, "it does not answer")

    def _give_up(self, ticket: _Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
            self._release(ticket.granted.result())
        self._advance()

    def _advance(self, newcomer: _Ticket | None = None) -> None:
        """Serves the queue from its front as far as possible; a newcomer whose model is ready passes it."""
        if newcomer is not None and (found := self._ready_for(newcomer.spec)) is not None:
            self._waiting.remove(newcomer)
            self._grant(newcomer, found)
        while self._waiting and not self._closing:
            ticket = self._waiting[0]
            if ticket.granted.done():  # cancelled, only its task has not run since
                self._waiting.popleft()
                continue
            states = [runner.state for runner in self._runners]
            match decide(
                ticket.spec,
                states,
                self._memory(),
                self._limits,
                grows=ticket.grows,
                widens=ticket.spec.model in self._short,
                ratios=self._loads.ratios(ticket.spec),
                unusable=self._loads.unusable(ticket.spec),
            ):
                case Reuse(index):
                    self._waiting.popleft()
                    self._grant(ticket, self._runners[index])
                case Start(spec):
                    self._waiting.popleft()
                    self._grant(ticket, self._start(spec, ticket.label, ticket.spec.num_ctx))
                case Evict(index, reason):
                    ticket.grows = ticket.grows or is_longer(ticket.spec, states[index].spec)
                    self._evict(self._runners[index], reason)
                    return
                case Wait():
                    return

    def _ready_for(self, spec: RunnerSpec) -> Runner | None:
        for runner in self._runners:
            if same_model(spec, runner.spec) and not runner.draining and can_serve(spec, runner.spec):
                return runner
        return None

    def _grant(self, ticket: _Ticket, runner: Runner) -> None:
        runner.users += 1
        runner.stop_timer()
        if ticket.keep_alive is not None:
            runner.keep_alive = ticket.keep_alive
        ticket.granted.set_result(runner)

    def _release(self, runner: Runner) -> None:
        runner.users -= 1
        if runner not in self._runners:
            return
        if runner.users > 0:
            if self._is_short(runner, self._limits.busy_shortage):
                self._short.add(runner.spec.model)
                self._evict(runner, "its pool is too small for its users")
            return
        if runner.loading is None:
            self._on_idle(runner)
        elif not runner.loading.done():
            runner.draining = True  # a request that comes now needs a load of its own
            runner.loading.cancel()

    def _on_idle(self, runner: Runner) -> None:
        """Unloads a runner without users, or starts its keep-alive timer."""
        runner.idle_since = time.monotonic()
        if runner.draining or runner.keep_alive <= 0:
            self._unload(runner)
        elif self._is_short(runner, self._limits.idle_shortage):
            log.info("model %s is loaded anew: requests have waited for room in its pool", runner.label)
            self._short.add(runner.spec.model)
            self._unload(runner)
            self._task(self._load_wider(runner))
        else:
            runner.start_keep_alive_timer(runner.keep_alive, lambda: self._unload(runner))

    def _is_short(self, runner: Runner, seconds: float) -> bool:
        """Whether its users have waited so long for tokens of its pool, and it can have a larger one."""
        if runner.draining or runner.pool.short <= seconds or runner.spec.model in self._short:
            return False
        return can_widen(runner.spec, self._memory(), self._limits)

    async def _load_wider(self, runner: Runner) -> None:
        """Loads a model that is being unloaded once more, with a larger pool, unless other requests come first."""
        await runner.gone.wait()
        spec = msgspec.structs.replace(runner.spec, pool=0, placement=None)
        if self._closing or self._waiting or self._ready_for(spec) is not None:
            return
        states = [other.state for other in self._runners]
        decision = decide(spec, states, self._memory(), self._limits, widens=True, ratios=self._loads.ratios(spec))
        if isinstance(decision, Start):
            wider = self._start(decision.spec, runner.label, runner.least_ctx)
            wider.keep_alive = runner.keep_alive

    def _start(self, spec: RunnerSpec, label: str, least_ctx: int) -> Runner:
        runner = Runner(spec, label, self._limits.keep_alive, least_ctx)
        self._runners.append(runner)
        runner.loading = self._task(self._load(runner))
        runner.loading.add_done_callback(lambda load: self._on_load_done(runner, load))
        return runner

    async def _load(self, runner: Runner) -> None:
        await self._loads.load(runner)
        self._events.loaded(runner.label, (runner.load_ended - runner.load_began) / 1e9)

    async def _make_room(self, loading: Runner, *, idle: bool) -> bool:
        """Evicts the other models, with `idle` those without users, and waits for their end; False: there was none."""
        others = [other for other in self._runners if other is not loading and not (idle and other.users)]
        for other in others:
            self._evict(other, "memory did not suffice to load another model")
        await asyncio.gather(*(other.gone.wait() for other in others))
        return bool(others)

    def _on_load_done(self, runner: Runner, load: asyncio.Task[None]) -> None:
        """After a load, however it ended, even when it was cancelled before it began."""
        runner.loading = None
        runner.idle_since = time.monotonic()
        if load.cancelled() or load.exception() is not None:
            self._runners.remove(runner)
            reason = "no request waits for it any more" if load.cancelled() else load.exception()
            log.warning("model %s could not be loaded: %s", runner.label, reason)
        else:
            self._task(self._watch(runner))
            if runner.users == 0:
                self._on_idle(runner)
        self._advance()

    def _held(self) -> dict[str, int]:
        """Bytes that our models hold of each device."""
        found: dict[str, int] = {}
        for runner in self._runners:
            for name, size in runner.on_devices:
                found[name] = found.get(name, 0) + size
        return found

    async def _watch(self, runner: Runner) -> None:
        """Forgets a runner whose engine ended by itself, so that the next request starts a new one.

        One whose engine wants to be replaced gets no new users, and is unloaded after those it has.
        """
        ended, retiring = self._task(runner.engine.ended()), self._task(runner.engine.retiring())
        await asyncio.wait({ended, retiring}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            log.error("model %s is unloaded after its requests: %s", runner.label, retiring.result())
            self._drain(runner)
        reason = await ended
        retiring.cancel()
        if runner.closing is None:
            runner.draining = True  # while its log is read no request may come to it
            if runner.on_devices and (said := await runner.engine.device_error()):
                reason = f"{reason}: {said}"
                self._loads.do_without_gpu(runner.spec, f"a GPU failed: {said}")
                log.warning("model %s does without GPUs for %d s", runner.label, WITHOUT_GPU_SECONDS)
            log.error("model %s ended unexpectedly: %s", runner.label, reason)
            self._discard(runner, reason)

    def _evict(self, runner: Runner, reason: str) -> None:
        if runner.draining:
            return
        log.info("model %s is evicted: %s", runner.label, reason)
        self._events.evicted(runner.label, reason)
        self._drain(runner)

    def _drain(self, runner: Runner) -> None:
        """Gives a runner no new users, and unloads it after those it has."""
        runner.draining = True
        if runner.users == 0:
            self._unload(runner)

    async def drain(self) -> None:
        """Gives no runner new users, unloads each after those it has, and waits for that; then nothing is loaded."""
        for runner in self.runners:
            if runner.loading is not None:
                await asyncio.wait({runner.loading})
        draining = self.runners
        for runner in draining:
            self._drain(runner)
        await asyncio.gather(*(runner.gone.wait() for runner in draining))
        await self.close()

    def expire(self, weights: str) -> None:
        """Unloads the models with these weights as soon as they have no users; without any, nothing happens."""
        for runner in self._runners:
            if runner.spec.model == weights:
                runner.keep_alive = 0
                if runner.users == 0:
                    self._unload(runner)

    def _discard(self, runner: Runner, reason: str) -> None:
        """Unloads a runner at once, in spite of its users: its engine does not work any more."""
        log.warning("model %s is given up: %s", runner.label, reason)
        self._unload(runner, keep=False)

    def _unload(self, runner: Runner, *, keep: bool = True) -> None:
        """Ends a runner; `keep`: what it has in its cache is written to disk before."""
        runner.stop_timer()
        runner.draining = True
        if runner.loading is None and runner.closing is None:
            runner.closing = self._task(self._close(runner, keep))

    async def _close(self, runner: Runner, keep: bool) -> None:
        try:
            if keep:
                await self._keep(runner)
            await runner.engine.close()
        finally:
            self._runners.remove(runner)
            runner.gone.set()
            log.info("model %s unloaded", runner.label)
            self._advance()

    async def _keep(self, runner: Runner) -> None:
        """Has the engine write what it has in its cache. Whatever goes wrong there, the model is unloaded."""
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                await runner.engine.keep()
        except (TimeoutError, EngineError):
            pass
        except Exception:
            log.exception("model %s: its conversations could not be kept", runner.label)

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # raised where the task is awaited; where it no longer is, it need not be reported

    async def close(self) -> None:
        """Ends every runner, also those that load; requests that wait get `Busy`."""
        self._closing = True
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.granted.done():
                ticket.granted.set_exception(ServerStopping())
        loads = [runner.loading for runner in self._runners if runner.loading is not None]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        for runner in self._runners:
            self._unload(runner)
        await asyncio.gather(*(runner.closing for runner in self._runners if runner.closing), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
