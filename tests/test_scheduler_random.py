"""The scheduler under any order of events: requests, leaving, cancelling, loads that end or fail, engines that die."""

import asyncio
from collections.abc import Callable

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from corral.engine.base import RunnerSpec
from corral.engine.load_options import can_serve
from corral.errors import Busy, EngineDied, OutOfMemory
from corral.machine.memory import GIB, Memory
from corral.serving.decisions import SchedulerLimits
from corral.serving.runner import Runner
from corral.serving.scheduler import Scheduler, SchedulerEvents
from tests.conftest import RANDOM_CASES
from tests.stub_engines import Launcher, turn_the_loop

MOST = 2
QUEUE = 6
MODELS = [RunnerSpec(model=name, num_ctx=4096, slots=2, weights_bytes=GIB) for name in "abc"]
ERRORS = [EngineDied("llama-server process has terminated"), OutOfMemory("not enough memory to load the model")]


class Client:
    """A request: it waits for a runner, keeps it until `leave`, and remembers how it went."""

    def __init__(self, scheduler: Scheduler, spec: RunnerSpec, keep_alive: float | None) -> None:
        self.spec = spec
        self.holds: Runner | None = None
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._ask(scheduler, keep_alive))

    async def _ask(self, scheduler: Scheduler, keep_alive: float | None) -> None:
        async with scheduler.runner(self.spec, self.spec.model, keep_alive) as runner:
            assert can_serve(self.spec, runner.spec)
            self.holds = runner
            try:
                await self.leave.wait()
            finally:
                self.holds = None


class Scheduling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.launcher = Launcher(by_itself=False)
        self.clients: list[Client] = []
        self.evicted: list[str] = []
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        limits = SchedulerLimits(max_loaded=MOST, max_queue=QUEUE, ping_after=-1)
        events = SchedulerEvents(evicted=lambda label, reason: self.evicted.append(label))
        self.scheduler = Scheduler(self.launcher, lambda: Memory(64 * GIB, 32 * GIB), limits, events)

    def do(self, step: Callable[[], object]) -> None:
        """Does it inside the loop, which does not turn meanwhile."""

        async def work() -> None:
            step()

        self.loop.run_until_complete(work())

    @rule(
        model=st.sampled_from(MODELS),
        num_ctx=st.sampled_from([None, 1024, 8192]),
        keep_alive=st.sampled_from([None, 0.0, 1e6, float("inf")]),
    )
    def come(self, model: RunnerSpec, num_ctx: int | None, keep_alive: float | None) -> None:
        if num_ctx is not None:
            model = msgspec.structs.replace(model, num_ctx=num_ctx, num_ctx_automatic=False)
        self.do(lambda: self.clients.append(Client(self.scheduler, model, keep_alive)))

    @rule(which=st.integers(0, 50))
    def leave(self, which: int) -> None:
        if self.clients:
            self.do(self.clients[which % len(self.clients)].leave.set)

    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        if self.clients:
            self.do(self.clients[which % len(self.clients)].task.cancel)

    @rule(times=st.integers(1, 12))
    def let_run(self, times: int) -> None:
        async def work() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(work())

    @rule(answers=st.booleans())
    def load_ends(self, answers: bool) -> None:
        def finish() -> None:
            for load in self.launcher.loads:
                if not load.outcome.done():
                    load.finish().answers = answers

        self.do(finish)

    @rule(error=st.sampled_from(ERRORS))
    def load_fails(self, error: Exception) -> None:
        for load in self.launcher.loads:
            if not load.outcome.done():
                self.do(lambda load=load: load.fail(error))  # type: ignore[misc]

    @rule(which=st.integers(0, 50))
    def engine_dies(self, which: int) -> None:
        engines = self.launcher.engines
        if engines:
            self.do(engines[which % len(engines)].die)

    @rule(which=st.integers(0, 50))
    def engine_retires(self, which: int) -> None:
        engines = self.launcher.engines
        if engines:
            self.do(engines[which % len(engines)].retire)

    @rule(which=st.integers(0, 50), answers=st.booleans())
    def engine_hangs(self, which: int, answers: bool) -> None:
        engines = self.launcher.engines
        if engines:
            engines[which % len(engines)].answers = answers

    @rule(model=st.sampled_from("abc"))
    def unload(self, model: str) -> None:
        self.do(lambda: self.scheduler.expire(model))

    @invariant()
    def never_more_than_may_be(self) -> None:
        runners = self.scheduler.runners
        assert len(runners) <= MOST
        assert sum(runner.loading is not None for runner in runners) <= 1
        assert all(runner.users >= 0 for runner in runners)
        waiting = [client for client in self.clients if not client.task.done() and client.holds is None]
        assert self.scheduler.queued <= QUEUE + len(waiting)

    @invariant()
    def users_are_those_who_use(self) -> None:
        for runner in self.scheduler.runners:
            assert runner.users >= sum(client.holds is runner for client in self.clients)

    def teardown(self) -> None:
        self.loop.run_until_complete(self._finish())
        self.loop.close()

    async def _finish(self) -> None:
        """Every request leaves and every load ends: all must have been answered, and none be counted as a user."""
        self.launcher.by_itself = True
        for client in self.clients:
            client.leave.set()
        for _ in range(40 * (len(self.clients) + 1)):
            for load in self.launcher.loads:
                if not load.outcome.done():
                    load.finish()
            await turn_the_loop()
            if all(client.task.done() for client in self.clients):
                break
        for client in self.clients:
            assert client.task.done(), "a request waits for ever"
            if not client.task.cancelled() and (error := client.task.exception()) is not None:
                assert isinstance(error, (Busy, *map(type, ERRORS)))
        await turn_the_loop()
        assert [runner.users for runner in self.scheduler.runners if runner.users] == []
        assert self.scheduler.queued == 0
        await self.scheduler.close()
        assert self.scheduler.runners == ()
        assert all(engine.closed <= 1 for engine in self.launcher.engines), "closed twice"
        assert all(engine.closed for engine in self.launcher.engines), "an engine is left behind"


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=RANDOM_CASES or 120, stateful_step_count=40)
