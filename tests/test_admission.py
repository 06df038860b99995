"""Admission to a loaded model: in order, never beyond its tokens or slots; nothing is lost when a request leaves."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.serving.admission import Pool


async def turn_the_loop() -> None:
    """Lets everything run that can run without waiting for anything."""
    for _ in range(10):
        await asyncio.sleep(0)


class Request:
    """A request for so many tokens and slots, which it keeps until `leave`."""

    def __init__(self, pool: Pool, tokens: int, slots: int = 1) -> None:
        self.tokens = tokens
        self.slots = slots
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._visit(pool))

    async def _visit(self, pool: Pool) -> None:
        async with pool.admit(self.tokens, self.slots):
            self.inside = True
            await self._leave.wait()
        self.inside = False

    def leave(self) -> None:
        self._leave.set()

    def cancel(self) -> None:
        self.inside = False
        self.task.cancel()


async def test_as_many_are_admitted_as_there_is_room_for() -> None:
    pool = Pool(100, 16)
    requests = [Request(pool, 40) for _ in range(3)]
    await turn_the_loop()
    assert [request.inside for request in requests] == [True, True, False]
    assert (pool.reserved, pool.active, pool.waiting) == (80, 2, 1)
    requests[0].leave()
    await turn_the_loop()
    assert [request.inside for request in requests] == [False, True, True]
    for request in requests:
        request.leave()
    await asyncio.gather(*(request.task for request in requests))
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)


async def test_a_request_may_take_several_slots() -> None:
    """One for more than there are gets all of them; one that waits for several keeps later ones behind it."""
    pool = Pool(1000, 4)
    first, wide, narrow = Request(pool, 10, slots=3), Request(pool, 10, slots=9), Request(pool, 10)
    await turn_the_loop()
    assert (pool.active, pool.waiting, narrow.inside) == (3, 2, False)
    first.leave()
    await turn_the_loop()
    assert (pool.active, pool.reserved, wide.inside, narrow.inside) == (4, 10, True, False)
    wide.leave()
    narrow.leave()
    await asyncio.gather(first.task, wide.task, narrow.task)
    assert (pool.active, pool.reserved) == (0, 0)


async def test_slots_bound_it_too() -> None:
    pool = Pool(1000, 2)
    requests = [Request(pool, 1) for _ in range(3)]
    await turn_the_loop()
    assert [request.inside for request in requests] == [True, True, False]
    for request in requests:
        request.leave()
    await asyncio.gather(*(request.task for request in requests))


async def test_a_small_one_does_not_pass_a_large_one_in_the_line() -> None:
    pool = Pool(100, 16)
    first, large, small = Request(pool, 60), Request(pool, 90), Request(pool, 10)
    await turn_the_loop()
    assert (first.inside, large.inside, small.inside) == (True, False, False)
    first.leave()
    await turn_the_loop()
    assert (large.inside, small.inside) == (True, True)
    large.leave()
    small.leave()
    await asyncio.gather(first.task, large.task, small.task)


async def test_a_request_for_more_than_there_is_gets_all_of_it_alone() -> None:
    pool = Pool(100, 16)
    giant, other = Request(pool, 1 << 40), Request(pool, 1)
    await turn_the_loop()
    assert (giant.inside, other.inside, pool.reserved) == (True, False, 100)
    giant.leave()
    other.leave()
    await asyncio.gather(giant.task, other.task)
    assert pool.reserved == 0


async def test_leaving_the_queue_makes_way_for_those_behind() -> None:
    pool = Pool(100, 16)
    first, large, small = Request(pool, 60), Request(pool, 90), Request(pool, 10)
    await turn_the_loop()
    large.cancel()
    await turn_the_loop()
    assert (first.inside, small.inside, pool.reserved) == (True, True, 70)
    first.leave()
    small.leave()
    await asyncio.gather(first.task, small.task)


async def test_a_turn_granted_at_the_moment_of_leaving_is_given_back() -> None:
    """Admitted first, cancelled before it could run: what it was given goes to the next."""
    pool = Pool(100, 16)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pool.admit(100))
        waiting, behind = Request(pool, 100), Request(pool, 100)
        await turn_the_loop()
    assert pool.active == 1, "the turn was granted, no request has run yet"
    waiting.cancel()
    await turn_the_loop()
    assert (waiting.inside, behind.inside, pool.reserved, pool.active) == (False, True, 100, 1)
    behind.leave()
    await behind.task
    assert (pool.reserved, pool.active) == (0, 0)


async def test_a_turn_that_comes_just_after_leaving_is_not_taken() -> None:
    """Cancelled first, its turn came before it could run: it must not give back what it never had."""
    pool = Pool(100, 16)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pool.admit(100))
        waiting, behind = Request(pool, 100), Request(pool, 100)
        await turn_the_loop()
        waiting.cancel()
    await turn_the_loop()
    assert (behind.inside, pool.reserved, pool.active) == (True, 100, 1)
    behind.leave()
    await behind.task
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)


async def test_an_error_inside_gives_back_what_was_taken() -> None:
    pool = Pool(100, 1)
    with pytest.raises(ZeroDivisionError):
        async with pool.admit(30):
            raise ZeroDivisionError
    assert (pool.reserved, pool.active) == (0, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 120)),
        st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=40,
)


@given(steps=STEPS, slots=st.integers(1, 4))
def test_whatever_happens_nothing_is_lost_and_none_passes_another(steps: list[tuple[str, int]], slots: int) -> None:
    asyncio.run(_live(steps, slots))


async def _live(steps: list[tuple[str, int]], slots: int) -> None:
    pool, requests = Pool(100, slots), list[Request]()

    def check() -> None:
        assert 0 <= pool.reserved <= 100
        assert 0 <= pool.active <= slots

    for step, number in steps:
        if step == "come":
            requests.append(Request(pool, number))
        elif step == "turn":
            await turn_the_loop()
            inside = [request for request in requests if request.inside]
            assert pool.active == len(inside)
            assert pool.reserved == sum(min(100, request.tokens) for request in inside)
            left = [request.inside for request in requests if not request.task.done()]
            assert left == sorted(left, reverse=True), "those inside came before those who wait"
        elif requests:
            request = requests[number % len(requests)]
            request.leave() if step == "leave" else request.cancel()
        check()
    for request in requests:
        request.leave()
    await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)
