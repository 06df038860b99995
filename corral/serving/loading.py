"""How a load is carried out: what is tried when memory or a GPU fails, and what is learned from how it went.

The scheduler decides that a model is loaded, and owns the queue and the list of runners; this changes only the runner
that it is given, and asks the scheduler for room where another model has to go. Everything runs on one event loop.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from corral.engine.base import Engine, LoadProgress, RunnerSpec
from corral.engine.placement import Ratios
from corral.errors import DeviceFailed, EngineCrashed, OutOfMemory
from corral.machine.memory import Memory
from corral.serving.decisions import SchedulerLimits, replaced, smaller, with_pool
from corral.serving.figures import Figures
from corral.serving.runner import Runner
from corral.serving.steps import Step, after_out_of_memory, without_gpus

log = logging.getLogger(__name__)

WITHOUT_GPU_SECONDS = 600.0
"""How long a model is loaded into main memory after a GPU has failed under it."""


class MakeRoom(Protocol):
    """Unloads other models than the one that loads, with `idle` only those without users, and waits for their end;
    False: there was none."""

    def __call__(self, loading: Runner, *, idle: bool) -> Awaitable[bool]: ...


class Loads:
    """Carries out loads, one after the other, and remembers what they taught: figures, and GPUs that failed."""

    def __init__(
        self,
        launch: Callable[[RunnerSpec, str, LoadProgress], Coroutine[Any, Any, Engine]],
        memory: Callable[[], Memory],
        limits: SchedulerLimits,
        figures: Figures,
        make_room: MakeRoom,
    ) -> None:
        """`launch` loads a model, given its label and what is to say how far that is; `memory` returns what is free."""
        self._launch = launch
        self._memory = memory
        self._limits = limits
        self._figures = figures
        self._make_room = make_room
        self._saving: set[asyncio.Task[None]] = set()
        self._without_gpu: dict[str, tuple[float, str]] = {}
        """Models under which a GPU failed: until when they do without, in monotonic seconds, and why."""

    async def load(self, runner: Runner) -> None:
        """Gives the runner an engine that has its model, perhaps with less context, pool or GPU than its specification
        said. Errors of the engine when nothing that is tried succeeds."""
        runner.load_began = time.monotonic_ns()
        engine = self._figures.engine
        runner.engine = await self._on_gpus(runner)
        if (pool := runner.progress.pool) is not None:
            log.info("model %s: this engine cannot share a pool of several contexts among its slots", runner.label)
            runner.load_with(with_pool(runner.spec, pool))
        runner.load_ended = time.monotonic_ns()
        seconds = (runner.load_ended - runner.load_began) / 1e9
        log.info("model %s loaded in %.2f s, context %d", runner.label, seconds, runner.spec.num_ctx)
        self._account(runner, engine)

    def ratios(self, spec: RunnerSpec) -> Ratios:
        """By how much earlier loads of the model differed from their estimates."""
        return self._figures.of(spec)

    def unusable(self, spec: RunnerSpec) -> str:
        """Why the model is to use no GPU now; empty: it may."""
        until, reason = self._without_gpu.get(spec.model, (0.0, ""))
        return reason if time.monotonic() < until else ""

    def do_without_gpu(self, spec: RunnerSpec, reason: str) -> None:
        """Has the model loaded into main memory for a while."""
        self._without_gpu[spec.model] = (time.monotonic() + WITHOUT_GPU_SECONDS, reason)

    async def _on_gpus(self, runner: Runner) -> Engine:
        """On GPUs less and less of it when their memory does not suffice, and none when one fails."""
        while runner.spec.placement is not None and runner.spec.placement.shares:
            try:
                return await self._launch(runner.spec, runner.label, runner.progress)
            except OutOfMemory as error:
                step = after_out_of_memory(runner.spec, runner.least_ctx, self._replaced)
                cause = str(error)
            except (DeviceFailed, EngineCrashed) as error:
                cause = str(error)
                self.do_without_gpu(runner.spec, f"the engine failed when it was loaded on a GPU: {cause}")
                step = Step(without_gpus(runner.spec, self.unusable(runner.spec)), "main memory only")
            assert step is not None
            log.warning("model %s: %s; trying %s", runner.label, cause, step.what)
            runner.load_with(step.spec)
        return await self._in_memory(runner)

    def _replaced(self, spec: RunnerSpec, layers: int) -> RunnerSpec:
        return replaced(spec, layers, self._memory(), self._limits, self._figures.of(spec))

    async def _in_memory(self, runner: Runner) -> Engine:
        """One more try when memory did not suffice: with a smaller context or pool, else without the other models."""
        try:
            return await self._launch(runner.spec, runner.label, runner.progress)
        except OutOfMemory as error:
            out_of_memory = error
        less = smaller(runner.spec, runner.least_ctx)
        has_room = await self._make_room(runner, idle=less is not None)
        if less is None and not has_room:
            raise out_of_memory
        if less is not None:
            log.warning("model %s: not enough memory, trying a context of %d", runner.label, less.num_ctx)
            runner.load_with(less)
        return await self._launch(runner.spec, runner.label, runner.progress)

    def _account(self, runner: Runner, engine: str) -> None:
        """Takes what the engine says that it holds on devices, and says where the model lies. `engine`: which it is."""
        placement = runner.spec.placement
        if placement is None:
            return
        if placement.shares:
            said = dict(runner.engine.on_devices())
            runner.held = tuple(
                (share.device, said[share.device].total) for share in placement.shares if share.device in said
            )
            if self._figures.learn(runner.spec, said, engine):
                saving = asyncio.get_running_loop().create_task(asyncio.to_thread(self._figures.save))
                self._saving.add(saving)
                saving.add_done_callback(self._saving.discard)
        log.info("model %s: %s", runner.label, placement.reason)
