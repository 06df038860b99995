"""The scheduler around `decide`: who waits, loads, shares, evicts and keeps alive. Engines are objects here."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from corral.engine.base import RunnerSpec
from corral.errors import Busy, EngineDied, EngineError, OutOfMemory, QueueFull
from corral.machine.memory import GIB, Memory
from corral.serving import scheduler as scheduler_module
from corral.serving.decisions import SchedulerLimits
from corral.serving.runner import Runner
from corral.serving.scheduler import Scheduler, SchedulerEvents
from tests.stub_engines import Launcher, StubEngine, turn_the_loop

A = RunnerSpec(model="a", num_ctx=4096, slots=4, weights_bytes=GIB)
B = msgspec.structs.replace(A, model="b")
C = msgspec.structs.replace(A, model="c")
TWO = SchedulerLimits(max_loaded=2)
ONE = SchedulerLimits(max_loaded=1)


def longer(spec: RunnerSpec, num_ctx: int) -> RunnerSpec:
    return msgspec.structs.replace(spec, num_ctx=num_ctx, num_ctx_automatic=False)


def plenty() -> Memory:
    return Memory(64 * GIB, 32 * GIB)


@asynccontextmanager
async def scheduling(
    launcher: Launcher, limits: SchedulerLimits = TWO, events: SchedulerEvents | None = None
) -> AsyncGenerator[Scheduler, None]:
    """A scheduler; at the end nothing of it may be left: no engine, no load, no task."""
    before = asyncio.all_tasks()
    scheduler = Scheduler(launcher, plenty, limits, events or SchedulerEvents())
    try:
        yield scheduler
    finally:
        await scheduler.close()
    assert scheduler.runners == ()
    assert [engine.closed for engine in launcher.engines if engine.closed == 0] == []
    assert all(load.outcome.done() or load.cancelled for load in launcher.loads)
    await turn_the_loop()
    assert asyncio.all_tasks() - before == set()


class Client:
    """A request that wants a runner, and holds it until `leave`."""

    def __init__(self, scheduler: Scheduler, spec: RunnerSpec, keep_alive: float | None = None) -> None:
        self.runner: Runner | None = None
        self._leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._use(scheduler, spec, keep_alive))

    async def _use(self, scheduler: Scheduler, spec: RunnerSpec, keep_alive: float | None) -> None:
        async with scheduler.runner(spec, spec.model, keep_alive) as self.runner:
            await self._leave.wait()

    @property
    def served(self) -> bool:
        return self.runner is not None

    @property
    def engine(self) -> StubEngine:
        assert self.runner is not None
        return cast(StubEngine, self.runner.engine)

    async def leave(self) -> None:
        self._leave.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        assert self.task.cancelled()


async def served(*clients: Client) -> list[bool]:
    await turn_the_loop()
    return [client.served for client in clients]


async def test_one_load_serves_all_who_wait_for_it() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        clients = [Client(scheduler, A) for _ in range(3)]
        assert await served(*clients) == [False, False, False]
        launcher.loads[0].finish()
        assert await served(*clients) == [True, True, True]
        assert len(launcher.loads) == 1
        assert clients[0].runner is clients[2].runner
        assert scheduler.runners[0].users == 3
        for client in clients:
            await client.leave()
        assert scheduler.runners[0].users == 0


async def test_models_load_one_at_a_time_and_in_order() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher, SchedulerLimits(max_loaded=3)) as scheduler:
        clients = [Client(scheduler, spec) for spec in (A, B, C)]
        await turn_the_loop()
        for number, model in enumerate("abc"):
            assert [load.spec.model for load in launcher.loads] == list("abc"[: number + 1])
            assert launcher.loads[-1].spec.model == model
            launcher.loads[-1].finish()
            await turn_the_loop()
        assert await served(*clients) == [True, True, True]
        for client in clients:
            await client.leave()


async def test_the_line_is_strict_but_a_loaded_model_needs_no_line() -> None:
    launcher = Launcher()
    async with scheduling(launcher, ONE) as scheduler:
        user = Client(scheduler, A)
        await turn_the_loop()
        other = Client(scheduler, B)  # evicts A, which drains
        await turn_the_loop()
        again = Client(scheduler, A)  # A is on its way out: behind B
        assert await served(user, other, again) == [True, False, False]
        assert scheduler.queued == 2
        await user.leave()
        assert await served(other, again) == [True, False]
        bypassing = Client(scheduler, B)
        assert await served(bypassing, again) == [False, False], "B drains for A, so it is no way past the line"
        await other.leave()
        assert await served(again, bypassing) == [True, False]
        await again.leave()
        assert await served(bypassing) == [True]
        await bypassing.leave()


async def test_a_loaded_model_is_used_while_others_wait_for_a_load() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        first = Client(scheduler, A)
        await turn_the_loop()
        launcher.loads[0].finish()
        loading, behind = Client(scheduler, B), Client(scheduler, C)
        bypassing = Client(scheduler, A)
        assert await served(first, loading, behind, bypassing) == [True, False, False, True]
        for client in (loading, behind):
            await client.cancel()
        for client in (first, bypassing):
            await client.leave()


async def test_a_shorter_context_shares_and_a_longer_one_waits_for_the_users() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        user, shorter = Client(scheduler, A), Client(scheduler, longer(A, 512))
        assert await served(user, shorter) == [True, True]
        assert len(launcher.loads) == 1
        wants_more = Client(scheduler, longer(A, 8192))
        assert await served(wants_more) == [False]
        await user.leave()
        assert await served(wants_more) == [False]
        await shorter.leave()
        assert await served(wants_more) == [True]
        assert [load.spec.num_ctx for load in launcher.loads] == [4096, 8192]
        assert launcher.engines[0].closed == 1
        await wants_more.leave()


def growing(num_ctx: int, grown_ctx: int = 32768) -> RunnerSpec:
    return msgspec.structs.replace(longer(A, num_ctx), grown_ctx=grown_ctx)


async def test_a_conversation_that_asks_for_more_at_every_turn_loads_anew_once() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        for num_ctx in (9000, 10250, 11500, 17000, 24577, 32768):
            client = Client(scheduler, growing(num_ctx))
            assert await served(client) == [True]
            await client.leave()
    assert [load.spec.num_ctx for load in launcher.loads] == [9000, 32768]


async def test_two_that_want_a_longer_context_share_the_load() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        user = Client(scheduler, A)
        assert await served(user) == [True]
        both = [Client(scheduler, growing(8192)), Client(scheduler, growing(9000))]
        assert await served(*both) == [False, False]
        await user.leave()
        assert await served(*both) == [True, True]
        for client in both:
            await client.leave()
    assert [load.spec.num_ctx for load in launcher.loads] == [4096, 32768]


async def test_one_that_wants_more_and_leaves_makes_no_other_model_grow() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        user = Client(scheduler, A)
        assert await served(user) == [True]
        wants_more = Client(scheduler, growing(8192))
        assert await served(wants_more) == [False]
        await wants_more.cancel()
        await user.leave()
        another = Client(scheduler, msgspec.structs.replace(growing(2048), model="b"))
        assert await served(another) == [True]
        await another.leave()
    assert [load.spec.num_ctx for load in launcher.loads] == [4096, 2048]


async def test_a_context_that_grew_beyond_memory_is_loaded_as_it_was_asked_for() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        first = Client(scheduler, A)
        await turn_the_loop()
        launcher.loads[0].finish()
        assert await served(first) == [True]
        await first.leave()
        client = Client(scheduler, growing(9000))
        await turn_the_loop()
        launcher.loads[1].fail(OutOfMemory("not enough memory to load the model"))
        await turn_the_loop()
        launcher.loads[2].finish()
        assert await served(client) == [True]
        await client.leave()
    sizes = [(load.spec.num_ctx, load.spec.pool) for load in launcher.loads]
    assert sizes[1:] == [(32768, 4 * 32768), (9000, 9000)]


async def test_the_shortest_lived_idle_model_is_evicted() -> None:
    launcher, evicted = Launcher(), list[tuple[str, str]]()
    events = SchedulerEvents(evicted=lambda label, reason: evicted.append((label, reason)))
    async with scheduling(launcher, TWO, events) as scheduler:
        for spec, keep_alive in ((A, 600.0), (B, 60.0), (C, None)):
            client = Client(scheduler, spec, keep_alive)
            assert await served(client) == [True]
            await client.leave()
        assert [runner.label for runner in scheduler.runners] == ["a", "c"]
    assert evicted == [("b", "as many models are loaded as may be")]


async def test_twenty_clients_of_three_models_with_room_for_two_are_all_served() -> None:
    launcher, most = Launcher(), 0

    async def ask(scheduler: Scheduler, number: int) -> str:
        nonlocal most
        spec = (A, B, C)[number % 3]
        async with scheduler.runner(spec, spec.model) as runner:
            most = max(most, len(scheduler.runners))
            assert runner.spec.model == spec.model
            for _ in range(number % 7):
                await asyncio.sleep(0)
            return runner.spec.model

    async with scheduling(launcher) as scheduler:
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(ask(scheduler, number) for number in range(20)))
        assert answers == [("a", "b", "c")[number % 3] for number in range(20)]
        assert most == 2


async def test_a_full_line_refuses_but_not_who_need_not_wait() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher, SchedulerLimits(max_loaded=2, max_queue=2)) as scheduler:
        first = Client(scheduler, A)
        await turn_the_loop()
        launcher.loads[0].finish()
        await turn_the_loop()
        waiting = [Client(scheduler, B), Client(scheduler, C), Client(scheduler, C)]
        await turn_the_loop()
        assert scheduler.queued == 2  # the one whose model loads does not wait in the line
        with pytest.raises(QueueFull):
            async with scheduler.runner(B, "b"):
                pass
        assert scheduler.queued == 2
        welcome = Client(scheduler, A)
        assert await served(welcome) == [True]
        for client in waiting:
            await client.cancel()
        for client in (first, welcome):
            await client.leave()


async def test_a_queue_of_none_still_serves_who_need_not_wait() -> None:
    async with scheduling(Launcher(), SchedulerLimits(max_loaded=2, max_queue=0)) as scheduler:
        client = Client(scheduler, A)
        assert await served(client) == [True]
        await client.leave()


async def test_a_crowd_at_a_loaded_model_counts_as_waiting() -> None:
    async with scheduling(Launcher(), SchedulerLimits(max_loaded=2, max_queue=1)) as scheduler:
        clients = [Client(scheduler, A)]
        await turn_the_loop()
        clients += [Client(scheduler, A) for _ in range(4)]  # four have slots, one waits
        await turn_the_loop()
        assert scheduler.queued == 1
        with pytest.raises(Busy):
            async with scheduler.runner(A, "a"):
                pass
        for client in clients:
            await client.leave()


async def test_a_client_that_leaves_the_line_is_forgotten() -> None:
    launcher = Launcher()
    async with scheduling(launcher, ONE) as scheduler:
        user = Client(scheduler, A)
        await turn_the_loop()
        waiting, behind = Client(scheduler, B), Client(scheduler, C)
        await turn_the_loop()
        await waiting.cancel()
        await user.leave()
        assert await served(behind) == [True]
        assert [load.spec.model for load in launcher.loads] == ["a", "c"]
        await behind.leave()


async def test_a_load_is_given_up_when_no_request_waits_for_it_any_more() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        first, second = Client(scheduler, A), Client(scheduler, A)
        await turn_the_loop()
        await first.cancel()
        assert [load.cancelled for load in launcher.loads] == [False]
        await second.cancel()
        await turn_the_loop()
        assert [load.cancelled for load in launcher.loads] == [True]
        assert scheduler.runners == ()


async def test_who_comes_while_a_load_is_given_up_gets_a_load_of_its_own() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        first = Client(scheduler, A)
        await turn_the_loop()
        launcher.holds_cancel = asyncio.Event()
        await first.cancel()
        second = Client(scheduler, A)
        await turn_the_loop()
        assert len(launcher.loads) == 1, "the first load has not ended yet"
        launcher.holds_cancel.set()
        await turn_the_loop()
        assert len(launcher.loads) == 2
        launcher.loads[1].finish()
        assert await served(second) == [True]
        await second.leave()


async def test_a_request_cancelled_before_its_turn_came_takes_no_place() -> None:
    """Cancelled and served in the same turn of the loop: nothing may be counted for it."""
    launcher = Launcher()
    async with scheduling(launcher, ONE) as scheduler:
        user = Client(scheduler, A)
        await turn_the_loop()
        closing = asyncio.Event()
        user.engine.holds_close = closing
        waiting = Client(scheduler, B)
        await turn_the_loop()
        await user.leave()
        await turn_the_loop()
        closing.set()
        waiting.task.cancel()
        await turn_the_loop()
        assert scheduler.runners == ()
        assert len(launcher.loads) == 1
        third = Client(scheduler, C)
        assert await served(third) == [True]
        await third.leave()


async def test_a_load_that_fails_fails_for_all_who_waited_and_the_next_request_tries_again() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        clients = [Client(scheduler, A) for _ in range(3)]
        other = Client(scheduler, B)
        await turn_the_loop()
        launcher.loads[0].fail(EngineDied("llama-server process has terminated: exit status 1"))
        await turn_the_loop()
        for client in clients:
            assert isinstance(client.task.exception(), EngineDied)
        launcher.loads[1].finish()
        assert await served(other) == [True]
        again = Client(scheduler, A)
        await turn_the_loop()
        launcher.loads[2].finish()
        assert await served(again) == [True]
        for client in (other, again):
            await client.leave()


async def test_a_runner_that_dies_is_replaced_by_the_next_request() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        first, other = Client(scheduler, A), Client(scheduler, B)
        assert await served(first, other) == [True, True]
        first.engine.die()
        await turn_the_loop()
        assert [runner.label for runner in scheduler.runners] == ["b"]
        next_one = Client(scheduler, A)
        assert await served(next_one) == [True]
        assert next_one.engine is not launcher.engines[0]
        assert launcher.engines[0].closed == 1, "once, although it died and was left afterwards"
        for client in (first, next_one, other):
            await client.leave()
        assert [runner.users for runner in scheduler.runners] == [0, 0]


async def test_conversations_are_kept_before_an_engine_ends_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "KEEP_SECONDS", 0.01)
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        (runner,) = scheduler.runners
        client.engine.holds_keep = asyncio.Event()  # a disk that does not answer
        await client.leave()
        scheduler.expire(A.model)
        await runner.gone.wait()
        assert (launcher.engines[0].kept, launcher.engines[0].closed) == (1, 1)


async def test_an_engine_that_died_is_not_asked_to_keep_anything() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        (runner,) = scheduler.runners
        client.engine.die()
        await runner.gone.wait()
        await client.leave()
        assert (launcher.engines[0].kept, launcher.engines[0].closed) == (0, 1)


async def test_a_runner_is_unloaded_once_also_when_it_died_in_use() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        (runner,) = scheduler.runners
        closing = asyncio.Event()
        client.engine.holds_close = closing
        client.engine.die()
        await turn_the_loop()
        await client.leave()
        closing.set()
        await turn_the_loop()
        assert runner.gone.is_set()
        assert scheduler.runners == ()
        assert launcher.engines[0].closed == 1


async def test_an_engine_that_retires_gets_no_new_users_and_is_replaced_after_those_it_has() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        first, second = Client(scheduler, A), Client(scheduler, A)
        await turn_the_loop()
        first.engine.retire()
        await turn_the_loop()
        next_one, other = Client(scheduler, A), Client(scheduler, B)
        assert await served(next_one, other) == [False, False]
        await first.leave()
        assert await served(next_one) == [False]
        assert launcher.engines[0].closed == 0, "one request still runs on it"
        await second.leave()
        assert await served(next_one, other) == [True, True]
        assert launcher.engines[0].closed == 1
        assert next_one.engine is not launcher.engines[0]
        for client in (next_one, other):
            await client.leave()


async def test_another_model_is_loaded_beside_one_that_drains() -> None:
    launcher = Launcher()
    async with scheduling(launcher, TWO) as scheduler:
        user = Client(scheduler, A)
        assert await served(user) == [True]
        launcher.engines[0].retire()
        await turn_the_loop()
        other, again = Client(scheduler, B), Client(scheduler, A)
        assert await served(other, again) == [True, False]
        third = Client(scheduler, C)
        await other.leave()
        assert await served(again, third) == [False, False], "with A, as many are loaded as may be"
        await user.leave()
        assert await served(again, third) == [True, True]
        await again.leave()
        await third.leave()
    assert [load.spec.model for load in launcher.loads] == ["a", "b", "a", "c"]


async def test_an_engine_that_retires_without_users_is_unloaded_at_once() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        engine = await idle(scheduler, A)
        engine.retire()
        await turn_the_loop()
        assert (engine.closed, scheduler.runners) == (1, ())
        engine = await idle(scheduler, A)
        assert engine is launcher.engines[1]


async def test_an_engine_that_dies_while_it_retires_is_replaced_at_once() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        client.engine.retire()
        await turn_the_loop()
        client.engine.die()
        await turn_the_loop()
        assert (launcher.engines[0].closed, scheduler.runners) == (1, ())
        await client.leave()


async def idle(scheduler: Scheduler, spec: RunnerSpec) -> StubEngine:
    """The engine of a model that is loaded and idle."""
    client = Client(scheduler, spec)
    await turn_the_loop()
    await client.leave()
    return client.engine


AT_ONCE = SchedulerLimits(max_loaded=2, ping_after=-1)
"""Every idle runner is asked before it is used."""


async def test_an_idle_runner_that_answers_is_used_on() -> None:
    launcher = Launcher()
    async with scheduling(launcher, AT_ONCE) as scheduler:
        engine = await idle(scheduler, A)
        before = engine.pings
        client = Client(scheduler, A)
        assert await served(client) == [True]
        assert client.engine is engine
        assert engine.pings == before + 1
        await client.leave()


async def test_an_idle_runner_that_does_not_answer_is_replaced_without_anybody_noticing() -> None:
    launcher = Launcher()
    async with scheduling(launcher, AT_ONCE) as scheduler:
        engine = await idle(scheduler, A)
        engine.answers = False
        clients = [Client(scheduler, A) for _ in range(3)]
        assert await served(*clients) == [True, True, True]
        assert {id(client.engine) for client in clients} == {id(launcher.engines[1])}
        assert engine.closed == 1
        for client in clients:
            await client.leave()


async def test_who_comes_during_a_ping_waits_for_its_answer() -> None:
    launcher = Launcher()
    async with scheduling(launcher, AT_ONCE) as scheduler:
        engine = await idle(scheduler, A)
        engine.holds_ping, engine.answers = asyncio.Event(), False
        first, second = Client(scheduler, A), Client(scheduler, A)
        assert await served(first, second) == [False, False]
        await first.cancel()
        engine.holds_ping.set()
        assert await served(second) == [True]
        assert second.engine is launcher.engines[1]
        await second.leave()


async def test_an_engine_that_never_answers_is_not_loaded_for_ever() -> None:
    launcher = Launcher()
    launcher.answers = False
    async with scheduling(launcher, AT_ONCE) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        assert isinstance(client.task.exception(), EngineDied)
        assert [engine.closed for engine in launcher.engines] == [1, 1]


async def test_out_of_memory_is_tried_once_more_with_a_smaller_context() -> None:
    launcher = Launcher(by_itself=False)
    large = msgspec.structs.replace(A, num_ctx=262144)
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, large)
        await turn_the_loop()
        launcher.loads[0].fail(OutOfMemory("not enough memory to load the model"))
        await turn_the_loop()
        assert (launcher.loads[1].spec.num_ctx, launcher.loads[1].spec.pool) == (32768, 32768)
        launcher.loads[1].finish()
        assert await served(client) == [True]
        assert client.runner is not None
        assert (client.runner.spec.num_ctx, client.runner.pool.tokens) == (32768, 32768)
        await client.leave()


@pytest.mark.parametrize("slots", [1, 4])
async def test_out_of_memory_is_tried_once_more_with_shorter_texts_to_embed(slots: int) -> None:
    launcher = Launcher(by_itself=False)
    whole = msgspec.structs.replace(longer(A, 8192), mode="embed", slots=slots, text_batch=8192)
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, whole)
        await turn_the_loop()
        launcher.loads[0].fail(OutOfMemory("not enough memory to load the model"))
        await turn_the_loop()
        spec = launcher.loads[1].spec
        assert (spec.num_ctx, spec.pool, spec.text_batch) == (8192, 8192, 2048)
        launcher.loads[1].finish()
        assert await served(client) == [True]
        await client.leave()


async def test_out_of_memory_twice_is_the_error_of_the_request() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, msgspec.structs.replace(A, num_ctx=8192))
        for number in range(2):
            await turn_the_loop()
            launcher.loads[number].fail(OutOfMemory(f"no memory, try {number}"))
        await turn_the_loop()
        assert str(client.task.exception()) == "no memory, try 1"
        assert scheduler.runners == ()


async def test_out_of_memory_with_a_wish_sends_the_other_models_away_first() -> None:
    launcher = Launcher(by_itself=False)
    fixed = msgspec.structs.replace(longer(B, 2048), slots=1)
    async with scheduling(launcher) as scheduler:
        busy = Client(scheduler, A)
        await turn_the_loop()
        launcher.loads[0].finish()
        client = Client(scheduler, fixed)
        await turn_the_loop()
        launcher.loads[1].fail(OutOfMemory("not enough memory to load the model"))
        await turn_the_loop()
        assert len(launcher.loads) == 2, "it waits until the other one is not used any more"
        await busy.leave()
        await turn_the_loop()
        assert launcher.engines[0].closed == 1
        launcher.loads[2].finish()
        assert await served(client) == [True]
        await client.leave()


async def test_a_waiter_whose_wish_the_smaller_context_does_not_meet_gets_its_own_load() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        automatic = Client(scheduler, msgspec.structs.replace(A, num_ctx=32768))
        wish = Client(scheduler, longer(A, 16384))
        await turn_the_loop()
        launcher.loads[0].fail(OutOfMemory("not enough memory to load the model"))
        await turn_the_loop()
        launcher.loads[1].finish()
        assert await served(automatic, wish) == [True, False]
        await automatic.leave()
        await turn_the_loop()
        launcher.loads[2].finish()
        assert await served(wish) == [True]
        assert launcher.loads[2].spec.num_ctx == 16384
        await wish.leave()


async def test_keep_alive_0_unloads_as_soon_as_no_request_uses_it() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        first, second = Client(scheduler, A, keep_alive=0), Client(scheduler, A)
        await turn_the_loop()
        await first.leave()
        await turn_the_loop()
        assert launcher.engines[0].closed == 0
        await second.leave()
        await turn_the_loop()
        assert launcher.engines[0].closed == 1
        assert scheduler.runners == ()


async def test_keep_alive_runs_out_and_only_when_idle() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A, keep_alive=0.01)
        await turn_the_loop()
        assert client.runner is not None
        assert client.runner.expires_at == float("inf")
        await client.leave()
        async with asyncio.timeout(10):
            await client.runner.gone.wait()
        assert scheduler.runners == ()


async def test_a_request_stops_the_keep_alive_clock() -> None:
    launcher = Launcher()
    async with scheduling(launcher, SchedulerLimits(keep_alive=0.02)) as scheduler:
        engine = await idle(scheduler, A)
        client = Client(scheduler, A)
        await turn_the_loop()
        assert client.engine is engine
        assert client.runner is not None
        assert client.runner.expires_at == float("inf")
        await client.leave()


async def test_kept_for_ever_means_no_clock() -> None:
    async with scheduling(Launcher()) as scheduler:
        client = Client(scheduler, A, keep_alive=float("inf"))
        await turn_the_loop()
        await client.leave()
        assert scheduler.runners[0].expires_at == float("inf")


async def test_a_keep_alive_stays_with_the_model_until_another_is_given() -> None:
    async with scheduling(Launcher()) as scheduler:
        for keep_alive, expected in ((77.0, 77.0), (None, 77.0), (5.0, 5.0)):
            client = Client(scheduler, A, keep_alive)
            await turn_the_loop()
            await client.leave()
            assert scheduler.runners[0].keep_alive == expected


async def test_expire_unloads_at_once_or_after_the_last_user() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        engine = await idle(scheduler, A)
        busy = Client(scheduler, B)
        await turn_the_loop()
        scheduler.expire("a")
        scheduler.expire("b")
        scheduler.expire("never loaded")
        await turn_the_loop()
        assert (engine.closed, busy.engine.closed) == (1, 0)
        await busy.leave()
        await turn_the_loop()
        assert busy.engine.closed == 1


async def test_expire_during_a_load_unloads_after_the_users() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        scheduler.expire("a")
        launcher.loads[0].finish()
        assert await served(client) == [True]
        await client.leave()
        await turn_the_loop()
        assert scheduler.runners == ()


def hanging(scheduler: Scheduler) -> list[Client]:
    return [Client(scheduler, spec) for spec in (A, A, B, C)]


async def test_close_ends_loads_tells_who_waits_and_leaves_nothing() -> None:
    launcher = Launcher(by_itself=False)
    async with scheduling(launcher) as scheduler:
        clients = hanging(scheduler)
        await turn_the_loop()
        await scheduler.close()
        await turn_the_loop()
        assert [str(client.task.exception()) for client in clients] == ["the server is stopping"] * 4
        with pytest.raises(Busy, match=r"^the server is stopping$"):
            async with scheduler.runner(A, "a"):
                pass
        assert launcher.loads[0].cancelled


@pytest.mark.parametrize("turns", range(6))
async def test_close_at_any_moment_of_a_load_leaves_nothing(turns: int) -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        clients = hanging(scheduler)
        for _ in range(turns):
            await asyncio.sleep(0)
        await scheduler.close()
        for client in clients:
            client.task.cancel()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


async def test_close_with_users_ends_their_engines() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        await scheduler.close()
        assert launcher.engines[0].closed == 1
        await client.leave()


async def test_close_while_a_runner_is_closing_waits_for_it() -> None:
    launcher = Launcher()
    async with scheduling(launcher) as scheduler:
        engine = await idle(scheduler, A)
        engine.holds_close = asyncio.Event()
        scheduler.expire("a")
        await turn_the_loop()
        closing = asyncio.ensure_future(scheduler.close())
        await turn_the_loop()
        assert not closing.done()
        engine.holds_close.set()
        await closing
        assert engine.closed == 1


async def test_a_launch_may_fail_in_any_way() -> None:
    def broken(spec: RunnerSpec) -> None:
        raise EngineError("no such program")

    launcher = Launcher()
    launcher.before = broken
    launcher.by_itself = False
    async with scheduling(launcher) as scheduler:
        client = Client(scheduler, A)
        await turn_the_loop()
        assert str(client.task.exception()) == "no such program"
        launcher.loads.clear()
