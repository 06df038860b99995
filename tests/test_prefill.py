"""Chunked prefill: how large the parts of a long prompt are, and which prompts are computed at once."""

from collections.abc import Sequence

import pytest

from corral.engine.llama.prefill import PREFIX, REMEMBERED, PrefillStats, SeenPrefixes, chunked_prefill, is_long
from corral.messages import AnswerProgress


@pytest.mark.parametrize(
    ("length", "tokens_a_second", "ends"),
    [
        (700, 100, []),
        (768, 100, []),
        (769, 100, [512]),
        (2000, 100, [512, 768, 1024, 1280, 1536, 1792]),
        (2000, 600, [512, 1112]),
        (25000, 10000, [512, 10512]),
    ],
)
async def test_parts_take_about_a_second_each(length: int, tokens_a_second: int, ends: list[int]) -> None:
    asked: list[int] = []

    async def compute(prefix: Sequence[int]) -> PrefillStats:
        assert list(prefix) == list(range(len(prefix)))
        tokens = len(prefix) - (asked[-1] if asked else 0)
        asked.append(len(prefix))
        return PrefillStats(tokens, tokens / tokens_a_second * 1000)

    said = [so_far async for so_far in chunked_prefill(range(length), compute)]
    assert asked == ends
    assert [so_far.progress for so_far in said] == [
        AnswerProgress("reading", end, length) for end in ([0, *ends] if ends else [])
    ]
    whole = said[-1] if said else PrefillStats()
    assert whole.tokens == (ends[-1] if ends else 0)
    assert whole.milliseconds == pytest.approx(whole.tokens / tokens_a_second * 1000)


async def test_an_engine_that_keeps_nothing_is_not_made_to_compute_again_and_again() -> None:
    asked: list[int] = []

    async def compute(prefix: Sequence[int]) -> PrefillStats:
        asked.append(len(prefix))
        return PrefillStats(len(prefix), 1000.0)

    said = [so_far async for so_far in chunked_prefill(range(5000), compute)]
    assert said[-1].tokens == 512 + 1024
    assert said[-1].progress == AnswerProgress("reading", 1024, 5000)
    assert asked == [512, 1024]


async def test_what_the_cache_had_of_the_first_part_is_said() -> None:
    async def compute(prefix: Sequence[int]) -> PrefillStats:
        return PrefillStats(512 - 40 if len(prefix) == 512 else 512, 512.0)

    said = [so_far async for so_far in chunked_prefill(range(1700), compute)]
    assert [so_far.progress for so_far in said[:2]] == [
        AnswerProgress("reading", 0, 1700),
        AnswerProgress("reading", 512, 1700, 40),
    ]


def test_a_text_is_long_by_its_bytes() -> None:
    assert not is_long("a" * 1536)
    assert is_long("a" * 1537)
    assert is_long("ä" * 769)


def test_a_prompt_is_new_when_none_before_it_has_its_prefix() -> None:
    seen = SeenPrefixes()
    system = "be brief " * (PREFIX // 9 + 1)
    assert seen.is_new(system + "one")
    assert not seen.is_new(system + "two"), "they share what the cache may have"
    assert seen.is_new("hello")
    assert not seen.is_new("hello, and what was said to that, and more"), "a conversation goes on"
    assert not seen.is_new("hello")
    assert seen.is_new("hell"), "only the cache of a longer prompt would be cut"


def test_an_empty_prompt_is_not_the_prefix_of_all() -> None:
    """The prompt of a conversation with pictures is not known, and given as empty."""
    seen = SeenPrefixes()
    assert seen.is_new("")
    assert seen.is_new("hello")


def test_only_the_last_prefixes_are_remembered() -> None:
    seen = SeenPrefixes()
    assert all(seen.is_new(f"{number}.") for number in range(REMEMBERED + 1))
    assert seen.is_new("0.")
    assert not seen.is_new("2.")
