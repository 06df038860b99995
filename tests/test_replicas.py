"""Which replica of a model gets a request: as a table, and what is known of prompts and connections."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.inference.runners import routing_prompt
from corral.messages import ChatRequest, GenerateRequest, Message, Picture, Tool
from corral.replicas.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker
from corral.replicas.prefixes import BLOCK, Prefixes, chain, prompt_bytes
from corral.replicas.replica import Prompt, Replica, choose
from corral.replicas.routing import ReplicaState, route

A = ReplicaState(name="a")
FIRST = "it comes before the others"
LOADED = "the only one with room and the model loaded"


def state(**changes: object) -> ReplicaState:
    return ReplicaState(**{"name": "b", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "replicas", "name", "reason"),
    [
        (100, [A], "a", "the only one"),
        (100, [state(is_usable=False), A], "a", "the only one that can be reached"),
        (100, [A, state(known=80)], "b", "knows 80 tokens of the prompt"),
        (1000, [A, state(known=800, in_flight=700)], "b", "knows 800 tokens of the prompt"),
        (
            1000,
            [A, state(known=800, in_flight=900)],
            "a",
            "less to do than the one that knows 800 tokens of the prompt",
        ),
        (100, [state(name="c", in_flight=300), A], "a", "least to do"),
        (100, [state(name="c", is_warm=False), state(in_flight=900)], "b", LOADED),
        (100, [state(tier=1, known=90), state(name="c", in_flight=500)], "c", FIRST),
        (100, [state(name="c", has_room=False), state(tier=1)], "b", "those before it have no room"),
        (100, [state(tier=1, has_room=False), state(name="c", has_room=False, in_flight=9000)], "c", FIRST),
        (100, [state(name="c", in_flight=300, weight=4), state(in_flight=100)], "c", "least to do"),
        (100, [state(name="c", served=3, weight=3), state(served=2)], "c", "least to do"),
        (100, [state(name="c", served=4, weight=3), state(served=1)], "b", "least to do"),
        (0, [state(name="c", served=1), state()], "b", "least to do"),
    ],
)
def test_the_replica_with_the_least_to_do_until_the_prompt_is_read(
    tokens: int, replicas: list[ReplicaState], name: str, reason: str
) -> None:
    chosen = route(tokens, replicas)
    assert chosen is not None
    assert (replicas[chosen.index].name, chosen.reason) == (name, reason)


@given(
    st.integers(0, 10_000),
    st.lists(
        st.builds(
            ReplicaState,
            name=st.just("x"),
            tier=st.integers(0, 2),
            weight=st.floats(0.1, 10),
            is_usable=st.booleans(),
            is_warm=st.booleans(),
            has_room=st.booleans(),
            in_flight=st.integers(0, 100_000),
            known=st.integers(0, 10_000),
            served=st.integers(0, 1000),
        )
    ),
)
def test_whatever_is_known_a_usable_one_is_chosen_where_there_is_one(tokens: int, replicas: list[ReplicaState]) -> None:
    chosen = route(tokens, replicas)
    if chosen is None:
        assert not any(one.is_usable for one in replicas)
    else:
        assert replicas[chosen.index].is_usable
        assert chosen.reason
        lower = [one for one in replicas if one.is_usable and one.has_room and one.tier < replicas[chosen.index].tier]
        assert not lower


def test_a_chain_follows_what_comes_before_each_block() -> None:
    text = bytes(range(256)) * 4
    whole = chain(text)
    assert len(whole) == len(text) // BLOCK
    assert len(set(whole)) == len(whole)
    assert chain(text + b"more") == whole
    assert chain(b"x" + text[1:])[0] != whole[0]
    assert not set(chain(b"x" + text[1:])) & set(whole)


def test_prefixes_forget_the_ends_of_old_prompts_first() -> None:
    prefixes = Prefixes(kept=4)
    prefixes.add((1, 2, 3))
    prefixes.add((1, 2, 4, 5))
    assert prefixes.known((1, 2, 4, 5)) == 4
    assert prefixes.known((1, 2, 3)) == 2
    prefixes.clear()
    assert prefixes.known((1,)) == 0


def test_conversations_that_begin_alike_have_prompts_that_begin_alike() -> None:
    first = ChatRequest(model="m", messages=(Message.of("system", "be kind"), Message.of("user", "hello")))
    second = ChatRequest(
        model="m", messages=(*first.messages, Message.of("assistant", "hi"), Message.of("user", "tell me more"))
    )
    assert prompt_bytes(second).startswith(prompt_bytes(first))
    with_tool = ChatRequest(model="m", messages=first.messages, tools=(Tool("clock"),))
    with_picture = ChatRequest(model="m", messages=(Message.of("user", "hello", media=[Picture(b"file")]),))
    texts = {prompt_bytes(one) for one in (first, second, with_tool, with_picture)}
    assert len(texts) == 4
    assert prompt_bytes(GenerateRequest(model="m", prompt="a", system="s")) == b"s\0\0a"


def test_after_a_failure_one_request_tries_and_the_pause_doubles() -> None:
    now = 0.0

    def clock() -> float:
        return now

    breaker = Breaker(clock)

    def may_pass() -> bool:
        return breaker.may_pass

    assert may_pass()
    breaker.failed("refused")
    assert not may_pass()
    assert breaker.error == "refused"
    assert breaker.wait == FIRST_PAUSE
    now = FIRST_PAUSE
    assert may_pass()
    breaker.begin()
    assert not may_pass()
    breaker.failed("refused")
    now += FIRST_PAUSE
    assert not may_pass()
    for _ in range(10):
        breaker.failed("refused")
    assert breaker.wait == LONGEST_PAUSE
    now += LONGEST_PAUSE
    breaker.begin()
    breaker.abandoned()
    assert may_pass()
    breaker.worked()
    assert (breaker.is_closed, breaker.error) == (True, "")


def test_a_conversation_returns_to_the_replica_that_knows_it() -> None:
    one, other = Replica("one"), Replica("other")
    text = b"word " * 1000
    prompt = Prompt(chain(text), len(text) // 4, 100)
    first = choose(prompt, (one, other))
    assert first is not None
    with first[0].serving(prompt):
        busy = choose(Prompt(tokens=10), (one, other))
        assert busy is not None
        assert busy[0] is not first[0]
    again = choose(prompt, (other, one))
    assert again is not None
    assert again[0] is first[0]
    assert "knows" in again[1].reason
    elsewhere = choose(prompt, (one, other), without=[first[0]])
    assert elsewhere is not None
    assert elsewhere[0] is not first[0]
    first[0].breaker.failed("refused")
    other_way = choose(prompt, (one, other))
    assert other_way is not None
    assert other_way[0] is not first[0]
    other_way[0].is_leaving = True
    assert choose(prompt, (one, other)) is None


async def test_a_long_prompt_is_hashed_beside_the_event_loop() -> None:
    text = "word " * 100_000
    request = GenerateRequest(model="m", prompt=text)
    hashing = asyncio.ensure_future(routing_prompt(request, 7))
    await asyncio.sleep(0)
    assert not hashing.done()
    assert await hashing == Prompt(chain(prompt_bytes(request)), len(prompt_bytes(request)) // 4, 7)
    short = await routing_prompt(GenerateRequest(model="m", prompt=text[:1000]))
    assert short.chain == (await hashing).chain[: len(short.chain)] != ()
