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


async def test_more_is_reserved_where_there_is_room() -> None:
    pool = Pool(100, 16)
    async with pool.admit(40) as one, pool.admit(20):
        assert await one.extend(80) < 1
        assert (pool.reserved, pool.waiting) == (100, 0)
        await one.extend(10)
        assert pool.reserved == 30
    assert (pool.reserved, pool.active) == (0, 0)


async def test_the_one_that_came_last_is_parked_and_goes_on_when_there_is_room() -> None:
    pool = Pool(100, 16)
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(pool.admit(60))
        last = await second.enter_async_context(pool.admit(30))
        parked = asyncio.ensure_future(last.extend(50))
        newcomer = Request(pool, 20)
        await turn_the_loop()
        assert (parked.done(), pool.reserved, pool.active, pool.waiting) == (False, 60, 1, 2)
        assert newcomer.inside is False, "it came after the one that is parked"
        await first.aclose()
        await parked
        await turn_the_loop()
        assert (pool.reserved, pool.active, newcomer.inside) == (70, 2, True)
        newcomer.leave()
        await newcomer.task


async def test_the_one_that_came_first_takes_what_others_wait_for() -> None:
    pool = Pool(100, 16)
    async with pool.admit(30) as first, pool.admit(60) as second:
        newcomer = Request(pool, 20)
        parked = asyncio.ensure_future(second.extend(80))
        await turn_the_loop()
        assert (parked.done(), newcomer.inside) == (False, False)
        await first.extend(100)
        assert (pool.reserved, pool.waiting) == (100, 2)
        await first.extend(10)
        await parked
        assert pool.reserved == 90
        await second.extend(10)
        await turn_the_loop()
        assert newcomer.inside is True
        newcomer.leave()
        await newcomer.task


async def test_a_parked_one_that_leaves_makes_way() -> None:
    pool = Pool(100, 16)
    async with pool.admit(60):
        async with AsyncExitStack() as stack:
            last = await stack.enter_async_context(pool.admit(30))
            parked = asyncio.ensure_future(last.extend(80))
            newcomer = Request(pool, 40)
            await turn_the_loop()
            assert newcomer.inside is False
            parked.cancel()
            await turn_the_loop()
        await turn_the_loop()
        assert (newcomer.inside, pool.reserved) == (True, 100)
        newcomer.leave()
        await newcomer.task
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)


def test_a_request_reserves_what_is_usual_unless_there_is_plenty() -> None:
    pool = Pool(4096, 16)
    assert pool.share(40, 200) == 200
    assert pool.share(40, 4096) == 40 + 256
    for length in (100,) * 7 + (150,) * 3:
        pool.usual.add(length)
    assert pool.share(40, 4096) == 40 + 192
    assert pool.share(40, 100) == 100
    pool.reserved = 2000
    assert pool.share(40, 300) == 40 + 192, "half of the pool stays free for those who come"
    assert pool.share(40, 300, held=500) == 300


async def test_it_counts_how_long_tokens_are_wanted_while_a_slot_is_free() -> None:
    pool = Pool(100, 2)
    async with pool.admit(50):
        async with pool.admit(10):
            for_slot = Request(pool, 10)
            await turn_the_loop()
            assert (for_slot.inside, pool.short) == (False, 0.0)
        await turn_the_loop()
        assert for_slot.inside is True
        for_slot.leave()
        await for_slot.task
        for_tokens = Request(pool, 90)
        await turn_the_loop()
        assert pool.short > 0
    await turn_the_loop()
    short = pool.short
    assert (for_tokens.inside, pool.short) == (True, short)
    for_tokens.leave()
    await for_tokens.task
