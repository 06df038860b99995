"""An answer that goes round in circles is ended; one that only looks like it is not."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.inference.repetition import (
    CHECK_EVERY,
    LEAST_REPEATS,
    LEAST_TOKENS,
    LONGEST_PERIOD,
    RepetitionDetector,
)
from tests.asking import Answer, metric, post
from tests.conftest import ROOT, RunningServer, add_model, running_server
from tests.speakers import speaker
from tests.tiny_models import CHATML


def ended_after(tokens: Iterator[Any] | list[Any]) -> int | None:
    """How many tokens were read until the detector found a repetition; None: it found none in all of them."""
    detector = RepetitionDetector()
    return next((count for count, token in enumerate(tokens, 1) if detector.add(token)), None)


def enough(period: int) -> int:
    """Tokens of a repetition that is long enough."""
    return max(LEAST_TOKENS, LEAST_REPEATS * period)


PERIODS = [1, 2, 3, 7, 10, 49, 50, 51, 99, 100, 101, 199, LONGEST_PERIOD]


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("before", [0, 1, 99, 777])
def test_a_repeated_phrase_is_found_in_time(period: int, before: int) -> None:
    text = [f"before {number}" for number in range(before)] + list(range(period)) * 2000
    found = ended_after(text)
    assert found is not None
    assert enough(period) <= found - before < enough(period) + CHECK_EVERY


@pytest.mark.parametrize("phrase", ["---+---+", "a b a b c ", "aab", "xx", "....x....y", "-" * 150 + "|"])
def test_a_phrase_that_repeats_something_inside_is_found_too(phrase: str) -> None:
    found = ended_after(list(phrase * 500))
    assert found is not None
    assert found < enough(len(phrase)) + CHECK_EVERY


@pytest.mark.parametrize("period", PERIODS)
def test_fewer_repetitions_are_none(period: int) -> None:
    text = [*range(1000, 3000), *(list(range(period)) * 400)[: enough(period) - 1], *range(5000, 7000)]
    assert ended_after(text) is None


def test_a_longer_phrase_is_none() -> None:
    assert ended_after(list(range(LONGEST_PERIOD + 1)) * 40) is None


@given(st.lists(st.integers(0, 3), max_size=1000), st.integers(1, LONGEST_PERIOD), st.integers(0, 2000))
def test_it_finds_what_a_plain_search_finds(noise: list[int], period: int, length: int) -> None:
    phrase = (noise or [0])[:period]
    text = noise + (phrase * (length + 1))[:length]
    detector = RepetitionDetector()
    for token in text:
        detector.add(token)
    assert detector.period == plainly_found(text)


def plainly_found(text: list[int]) -> int:
    """The shortest period of which the text ends in enough, found by comparing each token with the one before it."""
    for period in range(1, LONGEST_PERIOD + 1):
        need = enough(period)
        end = text[-need:]
        if len(end) == need and all(one == other for one, other in zip(end, end[period:], strict=False)):
            return period
    return 0


def _songs() -> str:
    verse = "{0} bottles of beer on the wall, {0} bottles of beer.\nTake one down, pass it around, {1} bottles left.\n"
    return "".join(verse.format(number, number - 1) for number in range(99, 0, -1))


def _refrains() -> str:
    """A song whose refrain comes again and again between verses of its own."""
    refrain = "Row, row, row your boat, gently down the stream, merrily, merrily, merrily, life is but a dream.\n" * 2
    return "".join(
        f"Verse {number}: the river had {number} bends and {number * 7} stones.\n" + refrain for number in range(60)
    )


def _rows() -> str:
    header = "| month | sold | returned | open |\n|-------|------|----------|------|\n"
    return header + "".join(f"| {number % 12 + 1} | {number * 37 % 101} | 0 | 0 |\n" for number in range(120))


SAMPLES = {
    "a table of numbers": _rows(),
    "a multiplication table": "\n".join(f"{one} x {two} = {one * two}" for one in range(1, 13) for two in range(1, 13)),
    "a song that counts": _songs(),
    "a refrain": _refrains(),
    "python code": (ROOT / "corral" / "inference" / "plan.py").read_text(),
    "assembler-like code": "".join(f"    mov eax, [rbx+{8 * number}]\n    add eax, ecx\n" for number in range(150)),
    "a list of records": json.dumps([{"id": number, "name": "none", "value": None} for number in range(120)], indent=2),
    "a numbered list": "".join(f"{number}. Buy milk, bread and eggs.\n" for number in range(1, 150)),
    "a drawing": "\n".join(" " * (40 - row) + "*" * (2 * row + 1) for row in range(40)),
    "documentation": (ROOT / "docs" / "design.md").read_text(),
    "a board of zeros that ends": "0 0 0 0 0 0 0 0 0\n" * 9 + "The board is empty.\n",
    "a long rule and what follows": ("=" * 120 + "\nChapter\n") * 1 + "Once upon a time there was a model.\n",
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("token", [r"\w+|\s+|[^\w\s]", r" ?\w+|[^\w\n]+|\n", r"\d|[^\W\d]+|\s|[^\w\s]"])
def test_real_texts_are_no_repetition(name: str, token: str) -> None:
    """However they are cut into tokens: words, words with the blank before them, single digits and blanks."""
    assert ended_after(re.findall(token, SAMPLES[name])) is None


PHRASE = [f" {word}" for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that say "one two … nine " again and again; the engine parses what `native` says."""
    work = tmp_path_factory.mktemp("circles")
    models = work / ".ollama" / "models"
    add_model(models, "plain", speaker(work / "plain.gguf", *PHRASE, in_circles=True))
    jinja = f"{CHATML}{{# no template that is known #}}"
    add_model(models, "native", speaker(work / "native.gguf", *PHRASE, in_circles=True, chat_template=jinja))
    bird = ("🦜".encode(), " and ", "é".encode(), " ")
    add_model(models, "bird", speaker(work / "bird.gguf", *bird, in_circles=True, chat_template=jinja))
    return work


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[RunningServer]:
    with running_server(home) as running:
        yield running


GREEDY = {"temperature": 0, "num_ctx": 1024}
HELLO = [{"role": "user", "content": "hello"}]
WARNINGS = "corral_answer_warnings_total"


def ask(server: RunningServer, path: str, model: str, **more: Any) -> Answer:
    options = {**GREEDY, **more.pop("options", {})}
    body = {"model": model, "stream": False, "options": options, **more}
    answer = post(server, path, {"messages": HELLO, **body} if path == "/api/chat" else {"prompt": "hello", **body})
    assert answer.status == 200, answer.body
    return answer


@pytest.mark.parametrize(
    ("path", "model", "more"),
    [
        ("/api/chat", "native", {}),
        ("/api/generate", "native", {}),
        ("/api/generate", "native", {"options": {"num_predict": 3000}}),
        ("/api/generate", "plain", {"raw": True}),
        ("/api/generate", "plain", {"template": "{{ .Prompt }}"}),
    ],
)
def test_an_answer_that_repeats_itself_is_ended(
    server: RunningServer, path: str, model: str, more: dict[str, Any]
) -> None:
    before = metric(server, WARNINGS)
    answer = ask(server, path, model, **more).json
    assert (answer["done"], answer["done_reason"]) == (True, "length")
    assert LEAST_TOKENS <= answer["eval_count"] < LEAST_TOKENS + 2 * CHECK_EVERY
    text = answer["message"]["content"] if path == "/api/chat" else answer["response"]
    assert text.split()[:10] == ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "one"]
    assert answer["prompt_eval_count"] > 0
    assert answer["prompt_eval_duration"] > 0
    assert answer["eval_duration"] > 0
    assert metric(server, WARNINGS) == before + 1
    assert "answer repeats itself" in server.log.read_text()


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_characters_of_several_tokens_are_whole(server: RunningServer, path: str) -> None:
    answer = ask(server, path, "bird", raw=path == "/api/generate").json
    text = answer["message"]["content"] if path == "/api/chat" else answer["response"]
    assert answer["done_reason"] == "length"
    assert set(text.split()) == {"🦜", "and", "é"}


def test_a_stream_ends_with_its_last_line(server: RunningServer) -> None:
    whole = ask(server, "/api/generate", "plain", raw=True).json
    lines = ask(server, "/api/generate", "plain", raw=True, stream=True).lines
    assert "".join(line["response"] for line in lines) == whole["response"]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


def test_raw_text_of_a_given_number_of_tokens_is_written_to_its_end(server: RunningServer) -> None:
    answer = ask(server, "/api/generate", "plain", raw=True, options={"num_predict": 1500}).json
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 1500)


def test_a_list_under_a_format_is_written_to_its_end(server: RunningServer) -> None:
    """Nothing but the number of tokens ends a list of equal things."""
    schema = {"type": "array", "items": {"const": 0}, "minItems": 600, "maxItems": 600}
    answer = ask(server, "/api/generate", "plain", format=schema, template="{{ .Prompt }}").json
    assert (answer["done_reason"], json.loads(answer["response"])) == ("stop", [0] * 600)


def test_a_setting_turns_it_off(home: Path) -> None:
    with running_server(home, CORRAL_END_REPETITION="0") as server:
        answer = ask(server, "/api/generate", "plain", raw=True).json
        assert (answer["done_reason"], answer["eval_count"]) == ("length", 10 * 1024)
        assert metric(server, WARNINGS) == 0
