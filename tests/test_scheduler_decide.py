"""What `decide` answers, as a table: no loop, no engine."""

import msgspec
import pytest

from corral.engine.base import RunnerSpec
from corral.engine.load_options import can_serve
from corral.machine.gpus import Gpu
from corral.machine.memory import GIB, Memory
from corral.serving.decisions import (
    OVERHEAD,
    Decision,
    Evict,
    Reuse,
    RunnerState,
    SchedulerLimits,
    Start,
    Wait,
    decide,
    pool_size,
    victim,
)

KIB = 1 << 10
PLENTY = Memory(total=64 * GIB, available=32 * GIB)
LIMITS = SchedulerLimits(max_loaded=2, first_contexts=4)

A = RunnerSpec(model="a", num_ctx=4096, slots=16, weights_bytes=GIB, cache_bytes_per_token=64 * KIB)
B = msgspec.structs.replace(A, model="b")
C = msgspec.structs.replace(A, model="c")


def asked(spec: RunnerSpec, **changes: object) -> RunnerSpec:
    return msgspec.structs.replace(spec, **changes)


def longer(spec: RunnerSpec, num_ctx: int) -> RunnerSpec:
    return asked(spec, num_ctx=num_ctx, num_ctx_automatic=False)


def at(
    spec: RunnerSpec, users: int = 0, keep_alive: float = 300, *, draining: bool = False, loading: bool = False
) -> RunnerState:
    return RunnerState(spec=spec, users=users, keep_alive=keep_alive, draining=draining, loading=loading)


ONE_ROOM = Memory(total=8 * GIB, available=GIB + GIB // 2)
"""Beside a loaded model there is no room for another."""

TINY = Memory(total=GIB, available=GIB // 2)

TOO_MANY = "as many models are loaded as may be"
NO_MEMORY = "memory does not suffice for another model beside it"
OTHER_OPTIONS = "it is wanted with other options"
EMBEDDING = asked(A, mode="embed")


def started(spec: RunnerSpec, contexts: int = 4) -> Start:
    return Start(asked(spec, pool=contexts * 4096))


TABLE: dict[str, tuple[RunnerSpec, list[RunnerState], Decision]] = {
    "nothing loaded: start": (A, [], started(A)),
    "loaded: reuse": (A, [at(B), at(A)], Reuse(1)),
    "loading: reuse, the load is shared": (A, [at(A, loading=True)], Reuse(0)),
    "on its way out: wait": (A, [at(A, draining=True)], Wait()),
    "another one loads: wait": (B, [at(A, loading=True)], Wait()),
    "another one leaves, and there is room beside it": (B, [at(A, 1, draining=True)], started(B)),
    "another one leaves, its load given up": (B, [at(A, loading=True, draining=True)], Wait()),
    "one leaves and one loads: wait": (C, [at(A, 1, draining=True), at(B, loading=True)], Wait()),
    "one leaves, another can serve": (B, [at(A, 1, draining=True), at(B)], Reuse(1)),
    "one leaves, another has to": (longer(B, 8192), [at(A, 1, draining=True), at(B)], Evict(1, OTHER_OPTIONS)),
    "too many, but one leaves: wait for that": (C, [at(A, 1, draining=True), at(B, 0, 5)], Wait()),
    "room for a second": (B, [at(A, 3)], started(B)),
    "too many: the shortest-lived goes": (C, [at(A, 0, 300), at(B, 0, 5)], Evict(1, TOO_MANY)),
    "too many: an idle one before a shorter-lived": (C, [at(A, 0, 300), at(B, 1, 5)], Evict(0, TOO_MANY)),
    "too many and all busy: the first in order": (C, [at(B, 1), at(A, 1)], Evict(1, TOO_MANY)),
    "a longer context: load anew": (longer(A, 8192), [at(A, 2)], Evict(0, OTHER_OPTIONS)),
    "a shorter context: never reload to shrink": (longer(A, 1024), [at(A)], Reuse(0)),
    "a longer automatic context is no wish": (A, [at(longer(A, 1024))], Reuse(0)),
    "embedding is another use of the same weights": (EMBEDDING, [at(A)], started(EMBEDDING)),
}


@pytest.mark.parametrize("case", TABLE)
def test_decide(case: str) -> None:
    wanted, loaded, expected = TABLE[case]
    assert decide(wanted, loaded, PLENTY, LIMITS) == expected


def test_without_a_limit_three_models_are_kept() -> None:
    assert decide(C, [at(A), at(B)], PLENTY, SchedulerLimits(first_contexts=4)) == started(C)
    assert decide(C, [at(A), at(B), at(EMBEDDING)], PLENTY, SchedulerLimits(first_contexts=4)) == Evict(0, TOO_MANY)


def test_a_pool_has_one_context_until_it_was_short() -> None:
    limits = SchedulerLimits()
    no_cache = asked(A, cache_bytes_per_token=0)
    assert decide(A, [], PLENTY, limits) == started(A, contexts=1)
    assert decide(A, [], PLENTY, limits, widens=True) == started(A, contexts=4)
    assert decide(A, [], TINY, limits, widens=True) == started(A, contexts=1)
    assert decide(no_cache, [], PLENTY, limits) == started(no_cache, contexts=4)


BESIDE_THE_LEAVING = {
    "room for all it may have": (4, {}, started(B)),
    "for one context less": (3, {}, Wait()),
    "for one context": (1, {}, Wait()),
    "for none": (0, {}, Wait()),
    "for the one context that it may have": (1, {"pool_contexts": 1}, started(B, contexts=1)),
    "for less than the one that it may have": (0, {"pool_contexts": 1}, Wait()),
}


@pytest.mark.parametrize("case", BESIDE_THE_LEAVING)
def test_nothing_is_made_smaller_or_evicted_for_a_model_that_leaves(case: str) -> None:
    contexts, changes, expected = BESIDE_THE_LEAVING[case]
    limits = msgspec.structs.replace(SchedulerLimits(max_loaded=3, first_contexts=4), **changes)
    memory = room_for(B, contexts * B.num_ctx)
    assert decide(B, [at(A, 1, draining=True), at(C)], memory, limits) == expected
    staying = decide(B, [at(A, 1), at(C)], memory, limits)
    assert staying == (started(B, contexts=min(contexts, limits.pool_contexts)) if contexts else Evict(1, NO_MEMORY))


@pytest.mark.parametrize(("tokens", "num_ctx"), [(4 * 32768, 32768), (3 * 32768, None), (16384, None)])
def test_a_context_does_not_grow_less_for_a_model_that_leaves(tokens: int, num_ctx: int | None) -> None:
    decision = decide(GROWING, [at(B, 1, draining=True)], room_for(GROWING, tokens), LIMITS, grows=True)
    assert (decision.spec.num_ctx if isinstance(decision, Start) else None) == num_ctx


def room_for(spec: RunnerSpec, tokens: int) -> Memory:
    """Main memory in which a model may have a cache of so many tokens."""
    needed = spec.weights_bytes + OVERHEAD + tokens * spec.cache_bytes_per_token
    return Memory(256 * GIB, int(needed / 0.8) + 16)


def test_too_little_memory_sends_another_model_away_and_shrinks_the_pool_of_the_last() -> None:
    assert decide(B, [at(A)], ONE_ROOM, LIMITS) == Evict(0, NO_MEMORY)
    assert decide(B, [], TINY, LIMITS) == started(B, contexts=1)


SCARCE = 2 * GIB
"""Main memory beside a GPU: not enough for a large model."""
LARGE = asked(A, model="large", weights_bytes=6 * GIB)
LOADED = asked(A, weights_bytes=6 * GIB, pool=4 * 4096)


def with_gpus(available: int, *free: int) -> Memory:
    gpus = tuple(Gpu(str(number), "", max(size, GIB), size) for number, size in enumerate(free))
    return Memory(64 * GIB, available, gpus)


WITH_GPUS: dict[str, tuple[RunnerSpec, list[RunnerState], Memory, Decision]] = {
    "it fits into the GPU": (LARGE, [], with_gpus(SCARCE, 24 * GIB), started(LARGE)),
    "beside another in the GPU": (LARGE, [at(LOADED)], with_gpus(SCARCE, 24 * GIB), started(LARGE)),
    "beside one that fills the GPU": (LARGE, [at(LOADED)], with_gpus(SCARCE, 8 * GIB), Evict(0, NO_MEMORY)),
    "beside one that fills the GPU, with main memory": (
        LARGE,
        [at(LOADED)],
        with_gpus(16 * GIB, 8 * GIB),
        started(LARGE),
    ),
    "partly in the GPU, partly in main memory": (LARGE, [at(A)], with_gpus(6 * GIB, 6 * GIB), started(LARGE)),
    "over several GPUs": (LARGE, [at(A)], with_gpus(SCARCE, 5 * GIB, 5 * GIB), started(LARGE)),
    "a given number of layers": (
        asked(LARGE, num_gpu=9),
        [at(A)],
        with_gpus(SCARCE, 24 * GIB),
        started(asked(LARGE, num_gpu=9)),
    ),
    "no layers: only main memory counts": (
        asked(LARGE, num_gpu=0),
        [at(A)],
        with_gpus(SCARCE, 24 * GIB),
        Evict(0, NO_MEMORY),
    ),
    "a model in main memory leaves the GPU free": (
        LARGE,
        [at(asked(LOADED, num_gpu=0))],
        with_gpus(SCARCE, 10 * GIB),
        started(LARGE),
    ),
    "more is loaded than the GPU had free": (
        LARGE,
        [at(LOADED), at(asked(LOADED, model="c"))],
        with_gpus(16 * GIB, 8 * GIB),
        started(LARGE),
    ),
    "a full GPU counts for nothing": (LARGE, [at(A)], with_gpus(SCARCE, 0), Evict(0, NO_MEMORY)),
    "nothing loaded, nothing free: the least pool": (LARGE, [], with_gpus(SCARCE, GIB), started(LARGE, contexts=1)),
}


@pytest.mark.parametrize("case", WITH_GPUS)
def test_a_model_may_lie_in_the_gpus_and_in_main_memory(case: str) -> None:
    wanted, loaded, memory, expected = WITH_GPUS[case]
    assert decide(wanted, loaded, memory, SchedulerLimits(max_loaded=9, first_contexts=4)) == expected


def test_a_long_text_to_embed_needs_room_to_be_computed() -> None:
    long = asked(EMBEDDING, compute_bytes=30 * GIB)
    assert decide(EMBEDDING, [at(B)], PLENTY, LIMITS) == started(EMBEDDING)
    assert decide(long, [at(B)], PLENTY, LIMITS) == Evict(0, NO_MEMORY)


def test_three_models_are_kept_for_each_gpu() -> None:
    gpus = (Gpu("0", "", GIB, GIB), Gpu("1", "", GIB, GIB))
    memory = Memory(PLENTY.total, PLENTY.available, gpus)
    models = [at(asked(A, model=f"m{number}")) for number in range(5)]
    assert isinstance(decide(A, models, memory, SchedulerLimits(first_contexts=4)), Start)
    assert isinstance(decide(A, [*models, at(B)], memory, SchedulerLimits(first_contexts=4)), Evict)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"projectors": ("p",)}, False),
        ({"adapters": ("l",)}, False),
        ({"num_gpu": -1}, True),
        ({"num_gpu": 0}, False),
        ({"num_gpu": 7}, True),
        ({"main_gpu": 0}, True),
        ({"main_gpu": 1}, False),
        ({"use_mmap": None}, True),
        ({"use_mmap": True}, False),
        ({"use_mmap": False}, True),
        ({"num_thread": 0}, True),
        ({"num_thread": 4}, True),
        ({"num_thread": 5}, False),
        ({"num_batch": None}, True),
        ({"num_batch": 64}, False),
        ({"draft_num_predict": 0}, False),
        ({"draft_num_predict": None}, True),
        ({"draft_num_predict": 2}, True),
    ],
)
def test_only_what_was_asked_for_and_differs_needs_a_new_load(change: dict[str, object], fits: bool) -> None:
    loaded = asked(A, num_gpu=7, main_gpu=0, use_mmap=False, num_thread=4, num_batch=512, draft_num_predict=2)
    assert can_serve(asked(A, **change), loaded) is fits


@pytest.mark.parametrize("change", [{"use_mmap": False}, {"use_mmap": True}, {"num_gpu": 0}, {"main_gpu": 1}])
def test_a_wish_is_a_wish_also_when_it_is_no_or_zero(change: dict[str, object]) -> None:
    assert can_serve(asked(A, **change), A) is False
    assert can_serve(A, asked(A, **change)) is True


@pytest.mark.parametrize("change", [{"main_gpu": 0}, {"draft_num_predict": 0}, {"num_thread": 0}])
def test_to_wish_for_what_is_so_anyway_needs_no_new_load(change: dict[str, object]) -> None:
    assert can_serve(asked(A, **change), A) is True


@pytest.mark.parametrize(
    ("wanted", "loaded", "fits"),
    [
        ({"ngram_draft": 0}, {"ngram_draft": 8}, True),  # what pays is decided anew at a load, and is no wish
        ({"ngram_draft": 8}, {"ngram_draft": 0}, True),
        ({"draft_num_predict": 0}, {"ngram_draft": 8}, False),
        ({"needs_logprobs": True}, {"ngram_draft": 8}, False),
        ({"needs_logprobs": True}, {"ngram_draft": 0}, True),
        ({"ngram_draft": 8}, {"needs_logprobs": True}, True),
        ({"draft_num_predict": 8, "ngram_draft": 8}, {"ngram_draft": 8}, True),
        ({"draft_num_predict": 4, "ngram_draft": 4}, {"draft_num_predict": 4, "ngram_draft": 0}, True),
    ],
)
def test_speculation_is_a_reason_to_load_anew_only_where_a_request_names_it(
    wanted: dict[str, object], loaded: dict[str, object], fits: bool
) -> None:
    assert can_serve(asked(A, **wanted), asked(A, **loaded)) is fits


def test_files_that_were_not_asked_for_are_a_difference_too() -> None:
    assert can_serve(A, asked(A, adapters=("l",))) is False
    assert can_serve(A, asked(A, projectors=("p",))) is False


@pytest.mark.parametrize(
    ("room", "slots", "contexts", "expected"),
    [
        (100 * GIB, 16, 4, 4 * 4096),
        (100 * GIB, 2, 4, 2 * 4096),
        (100 * GIB, 16, 0, 4096),
        (3 * 4096 * 64 * KIB, 16, 4, 3 * 4096),
        (4096 * 64 * KIB - 1, 16, 4, 4096),
        (-GIB, 16, 4, 4096),
    ],
)
def test_the_pool_has_as_many_contexts_as_fit_and_at_least_one(
    room: int, slots: int, contexts: int, expected: int
) -> None:
    assert pool_size(asked(A, slots=slots), room, contexts) == expected


def test_a_model_that_needs_no_cache_gets_all_contexts() -> None:
    assert pool_size(asked(A, cache_bytes_per_token=0), 0, 4) == 4 * 4096


def test_memory_is_shared_with_a_margin() -> None:
    """80 % of what is free, less weights and overhead, must hold one context."""
    needed = A.weights_bytes + OVERHEAD + A.num_ctx * A.cache_bytes_per_token
    enough = Memory(64 * GIB, int(needed / 0.8) + 16)
    assert isinstance(decide(A, [at(B)], enough, LIMITS), Start)
    assert isinstance(decide(A, [at(B)], Memory(64 * GIB, int(needed / 0.8) - 16), LIMITS), Evict)


GROWING = asked(longer(A, 9000), grown_ctx=32768)


@pytest.mark.parametrize(
    ("room", "num_ctx"),
    [
        (32768, 32768),
        (32767, 24576),
        (16384, 16384),
        (16383, 9000),
        (9000, 9000),
        (0, 9000),
    ],
)
def test_a_context_grows_as_far_as_memory_allows_in_steps(room: int, num_ctx: int) -> None:
    """`room` in tokens beside weights and overhead."""
    needed = A.weights_bytes + OVERHEAD + room * A.cache_bytes_per_token
    memory = Memory(64 * GIB, int(needed / 0.8) + 16)
    decision = decide(GROWING, [], memory, LIMITS, grows=True)
    assert isinstance(decision, Start)
    assert (decision.spec.num_ctx, decision.spec.pool % num_ctx) == (num_ctx, 0)


def test_a_context_that_does_not_grow_is_what_was_asked_for() -> None:
    assert decide(GROWING, [], PLENTY, LIMITS) == Start(asked(GROWING, pool=4 * 9000))
    assert decide(GROWING, [at(A)], PLENTY, LIMITS, grows=True) == Evict(0, OTHER_OPTIONS)
    assert decide(longer(A, 9000), [], PLENTY, LIMITS, grows=True) == Start(asked(longer(A, 9000), pool=4 * 9000))


def test_a_pool_is_counted_in_32_bits() -> None:
    huge = asked(A, num_ctx=1 << 24, slots=256, cache_bytes_per_token=0)
    assert pool_size(huge, 0, 256) == 127 * (1 << 24)


def test_kept_for_ever_is_sent_away_last() -> None:
    assert victim([at(A, 0, float("inf")), at(B, 0, 300), at(C, 0, 600)]) == 1
    assert victim([at(A, 0, float("inf")), at(B, 1, float("inf"))]) == 0


def test_a_model_that_never_saw_its_own_template_is_loaded_anew_for_it() -> None:
    without = asked(A, own_template=False)
    assert can_serve(without, A) is True
    assert can_serve(A, without) is False
