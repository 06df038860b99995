"""What every `Engine` does, in the same tests for the real engine and for the fake one, so that neither drifts.

Words in the prompt (`!tokens=40`) say what the fake is to answer; to the real model they are a text like any other.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from corral.engine.base import CompletionRequest, Engine, EngineChat, Finish, Piece, RunnerSpec, Sampling
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.errors import EngineDied, EngineError, EngineRefused
from corral.messages import AnswerProgress, Message, Tool
from corral.schemas import ON_ONE_LINE
from tests.conftest import FAKE_ENGINE
from tests.engines import open_to
from tests.tiny_models import CHATML, tiny_bert, tiny_llama, tiny_reranker

CONTEXT = 256
GREEDY = Sampling(temperature=0)
PROGRAMS = {"fake": str(FAKE_ENGINE), "real": ""}


@dataclass
class Loader:
    """Loads engines of one kind."""

    folder: Path
    program: str
    engines: list[LlamaEngine]

    async def load(self, **changes: Any) -> LlamaEngine:
        spec = RunnerSpec(model=str(self.folder / "tiny.gguf"), num_ctx=CONTEXT, slots=2, pool=2 * CONTEXT)
        spec = msgspec.structs.replace(spec, **changes)
        log = self.folder / f"worker{len(self.engines)}.log"
        self.engines.append(
            await launch(spec, log=log, stall_timeout=60, program=self.program, cage=open_to(self.folder.parent))
        )
        return self.engines[-1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    tiny_llama(folder / "tiny.gguf", chat_template=CHATML)
    tiny_bert(folder / "bert.gguf")
    tiny_reranker(folder / "reranker.gguf")
    return folder


@pytest.fixture(params=PROGRAMS)
async def loader(
    request: pytest.FixtureRequest, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Loader, None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    loader = Loader(models, PROGRAMS[request.param], [])
    yield loader
    for engine in loader.engines:
        await engine.close()


@pytest.fixture
async def engine(loader: Loader) -> Engine:
    return await loader.load()


async def all_of(pieces: AsyncGenerator[Piece, None]) -> list[Piece]:
    async with aclosing(pieces):
        return [piece async for piece in pieces]


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def finish_of(pieces: Sequence[Piece]) -> Finish:
    """The finish, which the last piece has and no other."""
    *others, last = pieces
    assert [piece.finish for piece in others] == [None] * len(others)
    assert last.finish is not None
    return last.finish


def ask(prompt: str | tuple[int, ...], max_tokens: int = 8, **more: Any) -> CompletionRequest:
    return CompletionRequest(prompt=prompt, max_tokens=max_tokens, **{"sampling": GREEDY, **more})


def chat(content: str, max_tokens: int = 8, **more: Any) -> EngineChat:
    messages = (Message.of("user", content),)
    return EngineChat(messages=messages, max_tokens=max_tokens, **{"sampling": GREEDY, **more})


async def test_a_completion_comes_in_pieces_with_their_tokens_and_ends_with_a_finish(engine: Engine) -> None:
    pieces = await all_of(engine.complete(ask("hello !tokens=40")))
    finish = finish_of(pieces)
    assert len(pieces) > 4
    assert (finish.reason, finish.stop_text, finish.generated_tokens) == ("length", "", 8)
    tokens = [token for piece in pieces for token in piece.tokens]
    assert len(tokens) == 8
    assert await engine.detokenize(tokens) == text_of(pieces) != ""
    assert [piece.thinking for piece in pieces] == [""] * len(pieces)
    assert [piece.tool_calls for piece in pieces] == [()] * len(pieces)
    assert [piece.logprobs for piece in pieces] == [()] * len(pieces)


async def test_a_finish_counts_tokens_and_nanoseconds(engine: Engine) -> None:
    prompt = "hello world and more of it !tokens=40"
    finish = finish_of(await all_of(engine.complete(ask(prompt))))
    assert finish.prompt_tokens == len(await engine.tokenize(prompt, add_special=True))
    assert finish.cached_tokens == 0
    assert finish.prompt_duration > 0
    assert finish.generation_duration > 0


async def test_a_prompt_that_was_computed_before_is_found_in_the_cache(engine: Engine) -> None:
    request = ask("hello world and more of it !tokens=40")
    first, second = [finish_of(await all_of(engine.complete(request))) for _ in range(2)]
    assert first.prompt_tokens == second.prompt_tokens
    assert second.cached_tokens == second.prompt_tokens - 1, "the last token is computed anew: it gives the next one"


async def test_a_seed_reads_the_whole_prompt_anew(engine: Engine) -> None:
    request = ask("hello world and more of it !tokens=40", sampling=Sampling(seed=7))
    first, second = [await all_of(engine.complete(request)) for _ in range(2)]
    assert text_of(first) == text_of(second)
    assert finish_of(second).cached_tokens == 0


@pytest.mark.parametrize("limit", [1, 2, 30])
async def test_an_answer_ends_at_its_limit(engine: Engine, limit: int) -> None:
    finish = finish_of(await all_of(engine.complete(ask("hello !tokens=40", limit))))
    assert (finish.reason, finish.generated_tokens) == ("length", limit)


async def test_an_answer_may_be_longer_than_the_context(engine: Engine) -> None:
    finish = finish_of(await all_of(engine.complete(ask("hello !tokens=400", CONTEXT + 50, num_keep=2))))
    assert (finish.reason, finish.generated_tokens) == ("length", CONTEXT + 50)


async def test_token_ids_are_a_prompt_too(engine: Engine) -> None:
    prompt = "hello !tokens=40"
    tokens = tuple(await engine.tokenize(prompt, add_special=True))
    as_text, as_tokens = await all_of(engine.complete(ask(prompt))), await all_of(engine.complete(ask(tokens)))
    assert text_of(as_text) == text_of(as_tokens)
    assert finish_of(as_text).prompt_tokens == finish_of(as_tokens).prompt_tokens


async def test_a_stop_word_ends_the_answer_is_not_said_and_is_named(engine: Engine) -> None:
    whole = text_of(await all_of(engine.complete(ask("hello !tokens=40", 20))))
    place = len(whole) // 2
    word = whole[place : place + 3]
    stop = ("never said", word)
    pieces = await all_of(engine.complete(ask("hello !tokens=40", 20, sampling=Sampling(temperature=0, stop=stop))))
    finish = finish_of(pieces)
    assert (finish.reason, finish.stop_text) == ("stop", word)
    assert text_of(pieces) == whole[: whole.index(word)]
    assert 0 < finish.generated_tokens <= 20


async def test_what_only_begins_like_a_stop_word_is_said(engine: Engine) -> None:
    whole = text_of(await all_of(engine.complete(ask("hello !tokens=40"))))
    place = next(place for place, letter in enumerate(whole) if letter not in whole[-8:])
    stop = (whole[place : place + 3] + "\x00",)
    pieces = await all_of(engine.complete(ask("hello !tokens=40", sampling=Sampling(temperature=0, stop=stop))))
    assert text_of(pieces) == whole
    assert finish_of(pieces).stop_text == ""


async def test_log_probabilities_stand_beside_each_token(engine: Engine) -> None:
    pieces = await all_of(engine.complete(ask("hello !tokens=40", top_logprobs=2)))
    found = [item for piece in pieces for item in piece.logprobs]
    assert len(found) == finish_of(pieces).generated_tokens == 8
    assert b"".join(bytes(item.bytes) for item in found).decode() == text_of(pieces)
    for item in found:
        assert item.logprob <= 0
        assert len(item.top) == 2
        assert item.top[0].logprob >= item.top[1].logprob
        assert all(other.top == () for other in item.top)


async def test_without_alternatives_the_tokens_own_probability_comes(engine: Engine) -> None:
    pieces = await all_of(engine.complete(ask("hello !tokens=40", top_logprobs=0)))
    found = [item for piece in pieces for item in piece.logprobs]
    assert len(found) == 8
    assert [item.top for item in found] == [()] * 8


SCHEMA = {
    **ON_ONE_LINE,
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


async def test_a_schema_is_kept_to(engine: Engine) -> None:
    pieces = await all_of(engine.complete(ask("hello", 60, schema=SCHEMA)))
    assert isinstance(json.loads(text_of(pieces))["ok"], bool)
    assert finish_of(pieces).reason == "stop"
    pieces = await all_of(engine.chat(chat("hello", 60, schema=SCHEMA)))
    assert isinstance(json.loads(text_of(pieces))["ok"], bool)


async def test_a_grammar_goes_before_its_schema_where_the_engine_has_its_notation(
    engine: Engine, loader: Loader
) -> None:
    request = ask("hello", 60, schema=SCHEMA, grammar='%llguidance {}\nstart: "5"\n')
    answer = text_of(await all_of(engine.complete(request)))
    assert answer == "5" if not loader.program else isinstance(json.loads(answer)["ok"], bool)


async def test_a_chat_comes_in_pieces_and_ends_with_a_finish(engine: Engine) -> None:
    request = chat("hello !tokens=40")
    pieces = await all_of(engine.chat(request))
    finish = finish_of(pieces)
    assert (finish.reason, finish.generated_tokens) == ("length", 8)
    assert text_of(pieces) != ""
    assert finish.prompt_tokens == len(await engine.tokenize(await engine.render(request), add_special=True))
    assert finish.prompt_duration > 0
    assert finish.generation_duration > 0
    assert [piece.tool_calls for piece in pieces] == [()] * len(pieces)


async def test_a_chat_is_the_completion_of_what_is_rendered(engine: Engine) -> None:
    request = chat("hello !tokens=40")
    rendered = await engine.render(request)
    assert "hello !tokens=40" in rendered
    assert "assistant" in rendered
    assert text_of(await all_of(engine.complete(ask(rendered)))) == text_of(await all_of(engine.chat(request)))


async def test_a_chat_stops_at_a_stop_word_which_is_not_said(engine: Engine) -> None:
    whole = text_of(await all_of(engine.chat(chat("hello !tokens=40", 20))))
    word = whole[len(whole) // 2 :][:3]
    sampling = Sampling(temperature=0, stop=(word,))
    pieces = await all_of(engine.chat(chat("hello !tokens=40", 20, sampling=sampling)))
    assert text_of(pieces) == whole[: whole.index(word)]
    assert (finish_of(pieces).reason, finish_of(pieces).stop_text) == ("stop", word)


async def test_a_chat_gives_log_probabilities_too(engine: Engine) -> None:
    pieces = await all_of(engine.chat(chat("hello !tokens=40", top_logprobs=2)))
    found = [item for piece in pieces for item in piece.logprobs]
    assert len(found) == 8
    assert [len(item.top) for item in found] == [2] * 8


async def test_a_chat_with_tools_that_are_not_called_is_text(engine: Engine) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    request = chat("hello !tokens=40", tools=(Tool("weather", "Tells the weather", parameters),))
    pieces = await all_of(engine.chat(request))
    assert text_of(pieces) != ""
    assert [piece.tool_calls for piece in pieces] == [()] * len(pieces)
    assert finish_of(pieces).reason == "length"


def progress_of(pieces: Sequence[Piece]) -> list[AnswerProgress]:
    """What was said of the prompt; all of it before the first text, and nothing else beside it."""
    said = [piece.progress for piece in pieces if piece.progress is not None]
    assert [Piece(progress=progress) for progress in said] == list(pieces[: len(said)])
    return said


@pytest.mark.parametrize("way", ["complete", "chat", "tokens"])
async def test_a_long_prompt_says_how_far_it_has_been_read(loader: Loader, way: str) -> None:
    engine = await loader.load(num_ctx=2048, pool=4096)
    text = " ".join(f"{number}" for number in range(1000, 1400)) + " !tokens=4"
    while len(tokens := await engine.tokenize(text, add_special=True)) < 1500:
        text = f"more {text}"
    match way:
        case "complete":
            pieces = await all_of(engine.complete(ask(text, progress=True)))
        case "tokens":
            pieces = await all_of(engine.complete(ask(tuple(tokens), progress=True)))
        case _:
            asked = chat(text, progress=True)
            asked = msgspec.structs.replace(asked, prompt=await engine.render(asked))
            pieces = await all_of(engine.chat(asked))
    said, finish = progress_of(pieces), finish_of(pieces)
    assert len(said) > 3
    assert [one.completed for one in said] == sorted(one.completed for one in said)
    assert said[0].completed == 0
    assert {one.total for one in said} == {finish.prompt_tokens}
    assert said[-1] == AnswerProgress("reading", finish.prompt_tokens, finish.prompt_tokens)
    assert text_of(pieces) != ""


async def test_what_is_in_the_cache_counts_as_read(engine: Engine) -> None:
    text = "hello " * 40
    await all_of(engine.complete(ask(text)))
    pieces = await all_of(engine.complete(ask(text, progress=True)))
    said, finish = progress_of(pieces), finish_of(pieces)
    assert said[0].completed == said[0].cached == finish.cached_tokens > 0
    assert said[-1] == AnswerProgress("reading", finish.prompt_tokens, finish.prompt_tokens, finish.cached_tokens)


async def test_nothing_is_said_of_a_prompt_unless_it_is_asked_for(engine: Engine) -> None:
    for pieces in (engine.complete(ask("hello")), engine.chat(chat("hello"))):
        assert progress_of(await all_of(pieces)) == []


async def test_rendering_keeps_the_order_of_a_conversation(engine: Engine) -> None:
    turns = [("system", "be brief"), ("user", "one"), ("assistant", "two"), ("user", "three")]
    messages = tuple(Message.of(role, content) for role, content in turns)
    rendered = await engine.render(EngineChat(messages=messages, max_tokens=1))
    places = [rendered.index(content) for _, content in turns]
    assert places == sorted(places)


@pytest.mark.parametrize("text", ["hello world", " two  blanks ", "ünï ☃ code", "<|im_start|>user", "a\nb\n"])
async def test_tokens_of_a_text_are_turned_back_into_it(engine: Engine, text: str) -> None:
    tokens = await engine.tokenize(text)
    assert tokens
    assert await engine.detokenize(tokens) == text


async def test_nothing_has_no_tokens(engine: Engine) -> None:
    assert await engine.tokenize("") == []
    assert await engine.detokenize([]) == ""


async def test_a_token_that_is_not_in_the_vocabulary_is_an_error(engine: Engine) -> None:
    with pytest.raises(EngineError):
        await engine.detokenize([10**9])
    with pytest.raises(EngineRefused, match=r"^Prompt contains invalid tokens$"):
        await all_of(engine.complete(ask((10**9,))))


@pytest.mark.parametrize("as_tokens", [False, True])
async def test_a_prompt_that_does_not_fit_the_context_is_refused(engine: Engine, as_tokens: bool) -> None:
    text = "hello " * (CONTEXT + 44)
    tokens = await engine.tokenize(text, add_special=True)
    assert len(tokens) > CONTEXT
    expected = (
        f"request ({len(tokens)} tokens) exceeds the available context size ({CONTEXT} tokens), try increasing it"
    )
    with pytest.raises(EngineRefused) as raised:
        await all_of(engine.complete(ask(tuple(tokens) if as_tokens else text)))
    assert str(raised.value) == expected


async def test_a_chat_that_does_not_fit_the_context_is_refused(engine: Engine) -> None:
    request = chat("hello " * (CONTEXT + 44))
    tokens = await engine.tokenize(await engine.render(request), add_special=True)
    with pytest.raises(EngineRefused, match=rf"^request \({len(tokens)} tokens\) exceeds the available context size"):
        await all_of(engine.chat(request))


async def test_no_tokens_at_all_are_refused(engine: Engine) -> None:
    with pytest.raises(EngineRefused, match=r'^"prompt" must not be empty$'):
        await all_of(engine.complete(ask(())))


async def test_an_engine_that_does_not_embed_says_so(engine: Engine) -> None:
    with pytest.raises(EngineError, match="does not support embeddings") as raised:
        await engine.embed(["hello"])
    assert not isinstance(raised.value, EngineRefused)


async def embedding(loader: Loader) -> Engine:
    return await loader.load(model=str(loader.folder / "bert.gguf"), mode="embed", num_batch=64)


async def test_an_embedding_is_a_vector_a_text_in_their_order(loader: Loader) -> None:
    engine = await embedding(loader)
    texts = ["hello world", "the sky", "hello world"]
    found = await engine.embed(texts)
    assert len(found.vectors) == 3
    assert len({len(vector) for vector in found.vectors}) == 1
    assert all(isinstance(number, float) and math.isfinite(number) for vector in found.vectors for number in vector)
    assert found.vectors[0] == pytest.approx(found.vectors[2], abs=2e-3)
    assert found.vectors[0] != pytest.approx(found.vectors[1], abs=2e-3)
    assert found.tokens == sum([len(await engine.tokenize(text, add_special=True)) for text in texts])


async def test_a_text_that_is_longer_than_a_batch_refuses_all(loader: Loader) -> None:
    engine = await embedding(loader)
    assert len(await engine.tokenize("hello " * 80, add_special=True)) > 64
    with pytest.raises(EngineRefused, match="is too large to process"):
        await engine.embed(["hello", "hello " * 80])


async def ranking(loader: Loader) -> Engine:
    return await loader.load(model=str(loader.folder / "reranker.gguf"), mode="rank", num_batch=64)


async def test_an_engine_that_does_not_rank_says_so(engine: Engine) -> None:
    with pytest.raises(EngineError, match="does not support reranking") as raised:
        await engine.rank("hello", ["world"])
    assert not isinstance(raised.value, EngineRefused)


async def test_a_ranking_is_a_score_a_document_in_their_order(loader: Loader) -> None:
    engine = await ranking(loader)
    texts = ["why not", "", "the sky", "why not"]
    found = await engine.rank("why the sky", texts)
    assert len(found.scores) == 4
    assert all(isinstance(score, float) and math.isfinite(score) for score in found.scores)
    assert found.scores[0] == pytest.approx(found.scores[3], abs=2e-3)
    assert len({round(score, 2) for score in found.scores[:3]}) == 3
    [alone] = (await engine.rank("why the sky", ["the sky"])).scores
    assert alone == pytest.approx(found.scores[2], abs=2e-3)
    lengths = [len(await engine.tokenize(text)) for text in texts]
    assert found.tokens == 4 * len(await engine.tokenize("why the sky")) + sum(lengths) + 4 * 3


async def test_a_query_and_document_that_are_longer_than_a_batch_refuse_all(loader: Loader) -> None:
    engine = await ranking(loader)
    with pytest.raises(EngineRefused, match="is too large to process"):
        await engine.rank("hello " * 30, ["hello", "hello " * 40])


async def test_closing_an_iterator_frees_its_slot(loader: Loader) -> None:
    """With one slot, another request could not end before that."""
    engine = await loader.load(slots=1, pool=CONTEXT)
    for request in (engine.complete(ask("hello !tokens=90000", 90_000)), engine.chat(chat("!tokens=90000", 90_000))):
        async with aclosing(request) as pieces:
            await anext(pieces)
        assert finish_of(await all_of(engine.complete(ask("hello !tokens=40")))).generated_tokens == 8


async def test_cancelling_a_request_frees_its_slot(loader: Loader) -> None:
    engine = await loader.load(slots=1, pool=CONTEXT)
    streams = asyncio.Event()

    async def ask_for_much() -> None:
        async for _ in engine.complete(ask("hello !tokens=90000", 90_000)):
            streams.set()

    asking = asyncio.ensure_future(ask_for_much())
    await streams.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert finish_of(await all_of(engine.complete(ask("hello !tokens=40")))).generated_tokens == 8


async def test_requests_are_answered_side_by_side(engine: Engine) -> None:
    """The second ends while the first still streams."""
    async with aclosing(engine.complete(ask("hello !tokens=90000", 90_000))) as pieces:
        await anext(pieces)
        assert finish_of(await all_of(engine.complete(ask("hello !tokens=40")))).generated_tokens == 8
        assert (await anext(pieces)).text != ""


async def test_an_engine_is_healthy_until_it_is_closed(engine: Engine) -> None:
    ended = asyncio.ensure_future(engine.ended())
    assert await engine.healthy()
    assert engine.memory() > 1 << 20
    assert not ended.done()
    await engine.close()
    assert await ended == "stopped"
    assert not await engine.healthy()
    assert engine.memory() == 0
    await engine.close()


async def test_closing_an_engine_ends_what_runs_on_it_with_an_error(engine: Engine) -> None:
    async with aclosing(engine.complete(ask("hello !tokens=90000", 90_000))) as pieces:
        await anext(pieces)
        await engine.close()
        with pytest.raises(EngineDied):
            [piece async for piece in pieces]


async def test_only_who_has_the_key_is_answered(loader: Loader) -> None:
    engine = await loader.load()
    async with aiohttp.ClientSession() as session:
        for path, body in (("/completion", {"prompt": "hello"}), ("/tokenize", {"content": "hello"})):
            async with session.post(engine.url + path, json=body) as response:
                assert response.status == 401


def exactly(text: str) -> dict[str, Any]:
    """A schema that only one text fits."""
    return {**ON_ONE_LINE, "const": text}


def tokens_until(pieces: Sequence[Piece], letter: str) -> int:
    """How many tokens there are to the first letter of this kind."""
    place = next(place for place, piece in enumerate(pieces) if letter in piece.text)
    return sum(len(piece.tokens) for piece in pieces[: place + 1])


MULTIBYTE = ["今天天气很好", "🦜🦩🐧", "Ärger, ☃ and 안녕", "a🦩b", "नमस्ते"]


@pytest.mark.parametrize("text", MULTIBYTE)
async def test_every_token_of_a_character_is_reported(engine: Engine, text: str) -> None:
    pieces = await all_of(engine.complete(ask("hello", 60, schema=exactly(text))))
    assert json.loads(text_of(pieces)) == text
    tokens = [token for piece in pieces for token in piece.tokens]
    assert len(tokens) == finish_of(pieces).generated_tokens
    assert (await engine.detokenize(tokens)).startswith(text_of(pieces))


@pytest.mark.parametrize("text", MULTIBYTE)
async def test_every_token_of_a_character_has_a_log_probability(engine: Engine, text: str) -> None:
    pieces = await all_of(engine.complete(ask("hello", 60, schema=exactly(text), top_logprobs=1)))
    tokens = [token for piece in pieces for token in piece.tokens]
    found = [item for piece in pieces for item in piece.logprobs]
    assert len(found) == len(tokens) == finish_of(pieces).generated_tokens
    assert b"".join(bytes(item.bytes) for item in found).decode() == text_of(pieces)
    pieces = await all_of(engine.chat(chat("hello", 60, schema=exactly(text), top_logprobs=1)))
    found = [item for piece in pieces for item in piece.logprobs]
    assert b"".join(bytes(item.bytes) for item in found).decode().strip() == text_of(pieces)


async def test_tokens_of_a_character_that_the_limit_cut_are_left_out(engine: Engine) -> None:
    whole = await all_of(engine.complete(ask("hello", 60, schema=exactly("🦜🦩"))))
    limit = tokens_until(whole, "🦜") + 1
    pieces = await all_of(engine.complete(ask("hello", limit, schema=exactly("🦜🦩"), top_logprobs=1)))
    finish = finish_of(pieces)
    assert (finish.reason, finish.generated_tokens) == ("length", limit)
    tokens = [token for piece in pieces for token in piece.tokens]
    assert text_of(pieces).endswith("🦜")
    assert await engine.detokenize(tokens) == text_of(pieces)
    assert sum(len(piece.logprobs) for piece in pieces) == len(tokens)


async def test_what_may_begin_a_stop_word_is_said_at_the_limit(engine: Engine) -> None:
    whole = text_of(await all_of(engine.complete(ask("hello !tokens=40"))))
    for size in (1, 2, 5, len(whole)):
        stop = (whole[-size:] + "\x00", "never said", whole[-size:] + "\x01")
        request = ask("hello !tokens=40", sampling=Sampling(temperature=0, stop=stop), top_logprobs=1)
        pieces = await all_of(engine.complete(request))
        finish = finish_of(pieces)
        assert (finish.reason, finish.stop_text, finish.generated_tokens) == ("length", "", 8)
        assert text_of(pieces) == whole
        tokens = [token for piece in pieces for token in piece.tokens]
        assert (len(tokens), await engine.detokenize(tokens)) == (8, whole)
        found = [item for piece in pieces for item in piece.logprobs]
        assert (len(found), b"".join(bytes(item.bytes) for item in found).decode()) == (8, whole)


async def test_what_may_begin_a_stop_word_is_said_at_the_limit_of_a_chat(engine: Engine) -> None:
    whole = text_of(await all_of(engine.chat(chat("hello !tokens=40"))))
    for size in (1, 2, 5, len(whole)):
        stop = (whole[-size:] + "\x00", "never said")
        pieces = await all_of(engine.chat(chat("hello !tokens=40", sampling=Sampling(temperature=0, stop=stop))))
        assert (finish_of(pieces).reason, text_of(pieces)) == ("length", whole)


@pytest.mark.parametrize("stop", ["天气x", '今天天气很好"x', "好x"])
async def test_characters_that_may_begin_a_stop_word_are_said_at_the_limit(engine: Engine, stop: str) -> None:
    schema = exactly("今天天气很好")
    whole = await all_of(engine.complete(ask("hello", 60, schema=schema)))
    limit = tokens_until(whole, "好")
    request = ask("hello", limit, schema=schema, sampling=Sampling(temperature=0, stop=(stop,)))
    pieces = await all_of(engine.complete(request))
    assert text_of(pieces) == text_of(whole)[: text_of(whole).index("好") + 1]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert (len(tokens), await engine.detokenize(tokens)) == (limit, text_of(pieces))


async def test_a_stop_word_of_many_bytes_ends_the_answer(engine: Engine) -> None:
    for stop in ("天气", "气很", "今天天"):
        request = ask("hello", 60, schema=exactly("今天天气很好"), sampling=Sampling(temperature=0, stop=(stop,)))
        pieces = await all_of(engine.complete(request))
        finish = finish_of(pieces)
        assert (finish.reason, finish.stop_text) == ("stop", stop)
        assert json.loads(text_of(pieces) + '"') == "今天天气很好"[: "今天天气很好".index(stop)]
        tokens = [token for piece in pieces for token in piece.tokens]
        assert len(tokens) == finish.generated_tokens
        assert await engine.detokenize(tokens) == text_of(pieces) + stop
