"""A small model that drafts tokens for another one, with the real engine: the same answers, and drafts that count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral import gguf
from corral.gguf.vocabulary import draft_misfit
from tests.asking import ask, metric, post
from tests.conftest import RunningServer, add_model, running_server
from tests.quantize_files import as_f16
from tests.tiny_models import tiny_llama

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a lighthouse",
    "To bake bread, first",
    "def fibonacci(n):\n",
    "Q: What is the largest ocean?\nA:",
    "red orange yellow green blue",
)


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`large` has 16-bit weights, `small` the same in four bits, `tiny` another vocabulary."""
    home = tmp_path_factory.mktemp("drafting")
    models = home / ".ollama" / "models"
    add_model(models, "large", as_f16(starter_gguf, home / "f16.gguf"))
    add_model(models, "small", starter_gguf)
    add_model(models, "tiny", tiny_llama(home / "tiny.gguf"))
    pairs = "large=small,small=tiny,tiny=gone"
    with running_server(home, CORRAL_DRAFT_MODELS=pairs, CORRAL_CACHE_BYTES="0") as server:
        yield server


def answers(server: RunningServer, model: str, **options: Any) -> tuple[list[str], float, float]:
    """To all prompts, greedily; tokens that were drafted for them, and taken."""
    names = ("corral_drafted_tokens_total", "corral_accepted_tokens_total")
    before = [metric(server, name) for name in names]
    found = []
    for prompt in PROMPTS:
        asked = {"model": model, "prompt": prompt, "raw": True, "stream": False}
        answer = post(server, "/api/generate", {**asked, "options": {"temperature": 0, "num_predict": 24, **options}})
        assert answer.status == 200, answer.body
        found.append(answer.json["response"])
    drafted, taken = (metric(server, name) - was for name, was in zip(names, before, strict=True))
    return found, drafted, taken


def test_greedy_answers_are_the_same_with_a_model_that_drafts(server: RunningServer) -> None:
    ours, drafted, taken = answers(server, "large")
    assert 0 < taken <= drafted
    assert taken > drafted / 3
    plain, none, _ = answers(server, "large", draft_num_predict=0)
    assert none == 0
    assert ours == plain


def test_a_request_says_how_many_tokens_are_drafted_at_once(server: RunningServer) -> None:
    _, drafted, taken = answers(server, "large", draft_num_predict=2)
    assert 0 < taken <= drafted


def test_log_probabilities_are_given_without_drafts(server: RunningServer) -> None:
    options = {"temperature": 0, "num_predict": 8}
    asked = {"model": "large", "prompt": PROMPTS[0], "stream": False, "logprobs": True, "options": options}
    before = metric(server, "corral_drafted_tokens_total")
    answer = post(server, "/api/generate", asked).json
    assert answer["response"]
    assert "".join(one["token"] for one in answer["logprobs"]) == answer["response"]
    assert metric(server, "corral_drafted_tokens_total") == before


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("small", '"tiny:latest" does not draft for "small:latest": '),
        ("tiny", '"gone:latest" does not draft for "tiny:latest": model \'gone:latest\' not found'),
    ],
)
def test_a_model_that_cannot_draft_is_named_once_and_done_without(
    server: RunningServer, model: str, reason: str
) -> None:
    for _ in range(2):
        asked = {"model": model, "prompt": "Hello", "stream": False, "options": {"num_predict": 2}}
        assert post(server, "/api/generate", asked).status == 200
    log = "\n".join(log_of(server))
    assert log.count(reason.replace('"', '\\"')) == 1


def log_of(server: RunningServer) -> list[str]:
    lines: list[str] = ask(server, "GET", "/api/log").json["lines"]
    return lines


def test_models_of_one_vocabulary_may_draft_for_each_other(starter_gguf: Path, tmp_path: Path) -> None:
    one, other = gguf.read(starter_gguf), gguf.read(as_f16(starter_gguf, tmp_path / "f16.gguf", layers=1))
    assert draft_misfit(one, other) == ""
    tiny = gguf.read(tiny_llama(tmp_path / "tiny.gguf"))
    assert draft_misfit(one, tiny) != ""
    assert draft_misfit(tiny, one) != ""
