"""Admission to a loaded model: in order, never beyond its tokens or slots; nothing is lost when a request leaves."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.serving.admission import Pool, Room


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


class Parkable:
    """A request that goes on as long as it is told to, a step at a time."""

    def __init__(self, pool: Pool, tokens: int) -> None:
        self.room: Room | None = None
        self._leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._visit(pool, tokens))

    async def _visit(self, pool: Pool, tokens: int) -> None:
        async with pool.admit(tokens, parkable=True) as self.room:
            await self._leave.wait()

    def extend(self, tokens: int) -> "asyncio.Future[float]":
        assert self.room is not None
        return asyncio.ensure_future(self.room.extend(tokens))

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def test_the_one_that_came_last_is_parked_and_goes_on_when_there_is_room() -> None:
    pool = Pool(100, 16)
    first, last = Parkable(pool, 50), Parkable(pool, 40)
    await turn_the_loop()
    newcomer = Request(pool, 20)
    await first_of(first.extend(60))
    wants = first.extend(70)
    await turn_the_loop()
    assert (wants.done(), pool.reserved, newcomer.inside) == (False, 100, False)
    parked = last.extend(50)
    await turn_the_loop()
    assert (wants.done(), parked.done()) == (True, False)
    assert (pool.reserved, pool.active, pool.waiting) == (70, 1, 2)
    assert newcomer.inside is False, "it came after the one that is parked"
    await first.leave()
    await parked
    await turn_the_loop()
    assert (pool.reserved, pool.active, newcomer.inside) == (70, 2, True)
    newcomer.leave()
    await asyncio.gather(newcomer.task, last.leave())
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)


async def first_of(extending: "asyncio.Future[float]") -> None:
    """Waits for what is granted at once."""
    await turn_the_loop()
    assert extending.done()


async def test_one_that_waits_for_more_is_parked_for_one_that_came_before() -> None:
    pool = Pool(100, 16)
    first, second, third = Parkable(pool, 30), Parkable(pool, 30), Parkable(pool, 30)
    await turn_the_loop()
    waits = [second.extend(60), first.extend(90)]
    await turn_the_loop()
    assert [one.done() for one in waits] == [False, False]
    waits.append(third.extend(30))
    await turn_the_loop()
    assert [one.done() for one in waits] == [False, True, False]
    assert (pool.reserved, pool.active, pool.waiting) == (90, 1, 2)
    await first.leave()
    await asyncio.gather(*waits)
    assert pool.reserved == 90
    await asyncio.gather(second.leave(), third.leave())
    assert (pool.reserved, pool.active) == (0, 0)


async def test_one_that_cannot_be_parked_is_waited_for() -> None:
    pool = Pool(100, 16)
    first = Parkable(pool, 50)
    other = Request(pool, 50)
    await turn_the_loop()
    more = first.extend(80)
    await turn_the_loop()
    assert (more.done(), other.inside) == (False, True)
    other.leave()
    await more
    assert pool.reserved == 80
    await first.leave()


async def test_a_parked_one_that_leaves_makes_way() -> None:
    pool = Pool(100, 16)
    first, last = Parkable(pool, 60), Parkable(pool, 30)
    await turn_the_loop()
    more, newcomer = first.extend(80), Request(pool, 20)
    await turn_the_loop()
    parked = last.extend(40)
    await turn_the_loop()
    assert (more.done(), parked.done(), newcomer.inside) == (True, False, False)
    parked.cancel()
    await last.leave()
    await turn_the_loop()
    assert (newcomer.inside, pool.reserved) == (True, 100)
    newcomer.leave()
    await asyncio.gather(newcomer.task, first.leave())
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)


MOVES = st.lists(
    st.tuples(st.sampled_from(["come", "plain", "extend", "leave"]), st.integers(0, 30), st.integers(1, 120)),
    max_size=40,
)


@given(moves=MOVES, slots=st.integers(1, 4))
def test_whoever_is_parked_all_get_on_in_the_end(moves: list[tuple[str, int, int]], slots: int) -> None:
    asyncio.run(_parked(moves, slots))


async def _parked(moves: list[tuple[str, int, int]], slots: int) -> None:
    pool = Pool(100, slots)
    requests = list[Parkable | Request]()
    waits: dict[Parkable, asyncio.Future[float]] = {}
    for move, number, tokens in moves:
        chosen = requests[number % len(requests)] if requests else None
        if move in ("come", "plain") or chosen is None:
            requests.append(Request(pool, tokens) if move == "plain" else Parkable(pool, tokens))
        elif isinstance(chosen, Request):
            chosen.leave()
        elif chosen.room is not None and not chosen.task.done() and (chosen not in waits or waits[chosen].done()):
            if move == "extend":
                waits[chosen] = chosen.extend(tokens)
            else:
                await chosen.leave()
        await turn_the_loop()
        assert 0 <= pool.reserved <= 100
        assert 0 <= pool.active <= slots
    while left := [one for one in requests if not one.task.done()]:  # each is served when those before have left
        await turn_the_loop()
        one = left[0]
        if isinstance(one, Request):
            assert one.inside
            one.leave()
        else:
            for other in left:  # those that compute come to where they may be parked
                if isinstance(other, Parkable) and other.room is not None and other.room.is_to_park:
                    waits[other] = other.extend(other.room.tokens)
            await turn_the_loop()
            for other in left:
                if isinstance(other, Request) and other.inside:
                    other.leave()
            await turn_the_loop()
            assert one not in waits or waits[one].done()
            await one.leave()
        await turn_the_loop()
    assert (pool.reserved, pool.active, pool.waiting) == (0, 0, 0)


def test_a_request_reserves_what_is_usual_unless_there_is_plenty() -> None:
    pool = Pool(4096, 16)
    assert pool.share(40, 200) == 200
    assert pool.share(40, 4096) == 256, "a slot's share"
    for length in (100,) * 7 + (150,) * 3:
        pool.usual.add(length)
    assert pool.share(40, 4096) == 40 + 192
    assert pool.share(100, 4096) == 256
    assert pool.share(1000, 4096) == 1000 + 128
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
