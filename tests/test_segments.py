"""An answer in segments is the answer in one: text, tokens, reason, wherever it is cut, whatever its stop words."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine.base import CompletionRequest, Engine, Finish, Piece, Sampling
from corral.engine.stops import StopWords
from corral.inference.segments import SegmentedEngine, can_be_parked
from corral.serving.admission import Pool
from corral.serving.usual import UsualLength

PROMPT = (1, 2, 3)

Said = tuple[str, tuple[int, ...], Finish]


class Scripted:
    """An engine that says the same text whenever it is asked, a character a token, as llama-server does: it keeps back
    what may begin a stop word and says that at its limit. Its context is so many tokens long."""

    def __init__(self, text: str, num_ctx: int = 1 << 20) -> None:
        self._text = text
        self.num_ctx = num_ctx
        self.asked: list[CompletionRequest] = []

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
        self.asked.append(request)
        assert isinstance(request.prompt, tuple)
        assert request.written == tuple(map(ord, self._text[: len(request.written)]))
        stops = StopWords(request.sampling.stop) if request.sampling.stop else None
        said, held = 0, list[int]()
        for character in self._text[len(request.written) :]:
            if said == request.max_tokens:
                break
            said += 1
            held.append(ord(character))
            text = character if stops is None else stops.feed(character)
            if stops is not None and stops.word:
                yield Piece(text, tuple(held), finish=self._finish(request, "stop", said, stops.word))
                return
            if text:
                yield Piece(text, tuple(held))
                held = []
        rest = "" if stops is None else stops.flush()
        is_cut = said == request.max_tokens
        yield Piece(rest, tuple(held), finish=self._finish(request, "length" if is_cut else "stop", said))

    def _finish(self, request: CompletionRequest, reason: str, said: int, word: str = "") -> Finish:
        return msgspec.convert(
            {
                "reason": reason,
                "stop_text": word,
                "prompt_tokens": len(PROMPT) + len(request.written),
                "cached_tokens": 1,
                "generated_tokens": said,
                "prompt_duration": 5,
                "generation_duration": 100 * said,
            },
            Finish,
        )


class FixedLength(UsualLength):
    """Whatever the prompt, an answer is to be so long."""

    def behind(self, prompt: int) -> int:
        return self._share


async def whole(pieces: AsyncGenerator[Piece, None]) -> Said:
    text, tokens, finish = "", tuple[int, ...](), cast(Finish | None, None)
    async with aclosing(pieces):
        async for piece in pieces:
            assert finish is None, "the finish comes last"
            text, tokens, finish = text + piece.text, tokens + piece.tokens, piece.finish
    assert finish is not None
    return text, tokens, finish


async def in_segments(engine: Scripted, request: CompletionRequest, first: int, size: int, tokens: int = 400) -> Said:
    """The answer in segments of `first` tokens, then `size` each."""
    pool = Pool(tokens, 16)
    pool.usual = FixedLength(size)
    async with pool.admit(300), pool.admit(len(PROMPT) + first) as room:  # the other one keeps it from taking all
        segmented = SegmentedEngine(cast(Engine, engine), pool, room, len(PROMPT), engine.num_ctx)
        answer = await whole(segmented.complete(request))
        assert room.tokens >= len(PROMPT) + min(len(answer[1]), engine.num_ctx - len(PROMPT))
    return answer


@given(
    text=st.text("ab ", max_size=40),
    stop=st.lists(st.text("ab ", min_size=1, max_size=4), max_size=2),
    most=st.integers(1, 50),
    first=st.integers(1, 20),
    size=st.integers(1, 20),
)
def test_it_is_the_answer_in_one(text: str, stop: list[str], most: int, first: int, size: int) -> None:
    request = CompletionRequest(
        prompt=PROMPT, sampling=Sampling(temperature=0, stop=tuple(stop)), max_tokens=most, progress=True
    )
    expected = asyncio.run(whole(Scripted(text).complete(request)))
    found = asyncio.run(in_segments(Scripted(text), request, first, size))
    assert found[:2] == expected[:2]
    for name in ("reason", "stop_text", "prompt_tokens", "cached_tokens", "generated_tokens", "prompt_duration"):
        assert getattr(found[2], name) == getattr(expected[2], name)


async def test_each_segment_goes_on_from_what_was_said() -> None:
    engine = Scripted("once upon a time")
    request = CompletionRequest(prompt=PROMPT, sampling=Sampling(seed=None), max_tokens=12, num_keep=-1, progress=True)
    text, _, finish = await in_segments(engine, request, first=5, size=4)
    assert text == "once upon a "
    asked = [("".join(map(chr, one.written)), one.max_tokens, one.num_keep, one.progress) for one in engine.asked]
    assert asked == [("", 5, -1, True), ("once ", 4, 3, False), ("once upon", 3, 3, False)]
    assert (finish.reason, finish.generated_tokens, finish.generation_duration) == ("length", 12, 1210)


async def test_the_last_segment_of_a_context_is_left_to_the_engine_which_shifts_it() -> None:
    engine = Scripted("x" * 90, num_ctx=20)
    request = CompletionRequest(prompt=PROMPT, max_tokens=70)
    text, _, _ = await in_segments(engine, request, first=5, size=5)
    assert len(text) == 70
    assert [one.max_tokens for one in engine.asked] == [5, 5, 5, 55]


async def test_a_request_that_has_all_it_may_need_is_left_to_the_engine() -> None:
    engine = Scripted("x" * 30)
    request = CompletionRequest(prompt=PROMPT, max_tokens=20)
    await in_segments(engine, request, first=20, size=5)
    assert engine.asked == [request]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"sampling": Sampling(seed=3, temperature=0)}, True),
        ({"sampling": Sampling(seed=3)}, False),
        ({"schema": {"type": "object"}}, False),
        ({"grammar": "start: /a/"}, False),
        ({"media": (b"picture",)}, False),
    ],
)
def test_what_can_be_parked(changes: dict[str, object], expected: bool) -> None:
    request = msgspec.structs.replace(CompletionRequest(prompt=PROMPT, max_tokens=9), **changes)
    assert can_be_parked(request) is expected
