"""Texts to embed through the real engine: whole where context and memory allow it, and true words where not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_bert, tiny_bert_tokens, tiny_llama

SKY = "the sky is blue and "
WORDS = len(tiny_bert_tokens(SKY)) - 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Models that were trained on long texts: `tiny` generates and puts no token around a text, `bert` only embeds."""
    work = tmp_path_factory.mktemp("long")
    models = work / "home" / ".ollama" / "models"
    add_model(models, "tiny", tiny_llama(work / "tiny.gguf", context_length=8192))
    add_model(models, "bert", tiny_bert(work / "bert.gguf", context_length=6000))
    with running_server(work / "home", OLLAMA_MAX_LOADED_MODELS="9") as running:
        yield running


def embed(server: RunningServer, model: str, texts: object, **more: Any) -> Answer:
    return post(server, "/api/embed", {"model": model, "input": texts, **more})


def context_of(server: RunningServer, model: str) -> int:
    rows = ask(server, "GET", "/api/ps").json["models"]
    return next(int(row["context_length"]) for row in rows if row["name"] == f"{model}:latest")


@pytest.mark.parametrize("truncate", [True, False])
def test_a_text_is_embedded_whole_where_the_context_has_room_for_it(server: RunningServer, truncate: bool) -> None:
    answer = embed(server, "tiny", "a" * 5000, truncate=truncate, options={"num_ctx": 8192})
    assert (answer.status, answer.json["prompt_eval_count"]) == (200, 5000), answer.body
    assert "x-corral-truncated-tokens" not in answer.headers


def test_an_embedding_model_takes_all_that_it_was_trained_on(server: RunningServer) -> None:
    """Nothing was asked for, so the model's own context counts; `ps` shows the same number."""
    count = 5900 // WORDS
    answer = embed(server, "bert", SKY * count, truncate=False)
    assert (answer.status, answer.json["prompt_eval_count"]) == (200, count * WORDS + 2), answer.body
    assert context_of(server, "bert") == 6000
    cut = embed(server, "bert", [SKY * 2000, "the sky"])
    assert (cut.status, cut.json["prompt_eval_count"]) == (200, 6000 + 4)
    assert cut.headers["x-corral-truncated-tokens"] == str(2000 * WORDS + 2 - 6000)


def test_the_end_of_a_long_text_counts(server: RunningServer) -> None:
    texts = [SKY * 800 + end for end in ("cat", "dog dog dog dog")]
    one, other = embed(server, "bert", texts).json["embeddings"]
    assert not np.allclose(one, other, atol=1e-6)


def test_a_text_beyond_the_context_is_refused_for_the_context(server: RunningServer) -> None:
    refused = embed(server, "bert", ["the sky", SKY * 2000], truncate=False)
    assert (refused.status, refused.error) == (400, "the input length exceeds the context length")
    refused = embed(server, "bert", SKY * 200, truncate=False, options={"num_ctx": 100})
    assert (refused.status, refused.error) == (400, "the input length exceeds the context length")


@pytest.mark.parametrize("inputs", [["a", "", "b"], ["", "a"], ["a", "b", ""], [*["word"] * 90, ""]])
@pytest.mark.parametrize("truncate", [True, False])
def test_an_empty_text_is_named_where_the_model_makes_no_vector_of_it(
    server: RunningServer, inputs: list[str], truncate: bool
) -> None:
    refused = embed(server, "tiny", inputs, truncate=truncate)
    place = inputs.index("") + 1
    assert (refused.status, refused.error) == (
        400,
        f"input {place} is empty, and the model makes no vector of an empty text",
    )


def test_an_empty_text_has_a_vector_where_the_model_puts_tokens_around_it(server: RunningServer) -> None:
    answer = embed(server, "bert", ["the sky", "", " ", ""])
    assert (answer.status, answer.json["prompt_eval_count"]) == (200, 4 + 2 + 2 + 2)
    first, empty, blank, again = answer.json["embeddings"]
    np.testing.assert_allclose(empty, blank, atol=2e-3)
    np.testing.assert_allclose(empty, again, atol=2e-3)
    assert not np.allclose(first, empty, atol=2e-3)


@pytest.mark.parametrize("text", [" ", "\n", "\t\t", "\0"])
def test_a_text_of_white_space_is_no_empty_one(server: RunningServer, text: str) -> None:
    answer = embed(server, "tiny", ["a", text])
    assert (answer.status, len(answer.json["embeddings"])) == (200, 2)


def test_many_texts_come_back_in_their_order(server: RunningServer) -> None:
    """They are computed in parts; two requests at once get their parts in turn, and neither mixes them up."""
    texts = [f"word {number} " + "and the sky " * (number % 7) for number in range(150)]
    counts = sum(len(tiny_bert_tokens(text)) for text in texts)
    with ThreadPoolExecutor(2) as pool:
        forwards, backwards = pool.map(lambda given: embed(server, "bert", given), (texts, texts[::-1]))
    assert (forwards.json["prompt_eval_count"], backwards.json["prompt_eval_count"]) == (counts, counts)
    alone = [embed(server, "bert", texts[place]).json["embeddings"][0] for place in (0, 75, 149)]
    found = forwards.json["embeddings"]
    np.testing.assert_allclose([found[0], found[75], found[149]], alone, atol=2e-3)
    np.testing.assert_allclose(found, backwards.json["embeddings"][::-1], atol=2e-3)


def test_what_a_batch_does_not_hold_is_said_so(server: RunningServer) -> None:
    refused = embed(server, "bert", ["the sky", SKY * 20], truncate=False, options={"num_batch": 64})
    sentence = (
        f"input 2 has {20 * WORDS + 2} tokens, which fit the context but not the batch of 64, and a text is embedded "
        'in one batch; the option "num_batch" set its size'
    )
    assert (refused.status, refused.error) == (400, sentence)
