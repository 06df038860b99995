"""Documents ranked by a query, through the real engine: scores as NumPy computes them; what is too long or no text."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import CHATML, tiny_bert, tiny_bert_tokens, tiny_llama, tiny_reranker, tiny_reranker_score

QUERY = "Why is the sky blue?"
DOCUMENTS = ["hello world", "The sky is blue because: why not?", "", "a cat and a dog", "Größe 日本語 xyzzy"]
LENGTH = 200
ROUTES = ("/api/rerank", "/v1/rerank")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("rerank")
    models = work / "home" / ".ollama" / "models"
    add_model(models, "reranker", tiny_reranker(work / "reranker.gguf", context_length=LENGTH))
    prompted = tiny_reranker(work / "prompted.gguf", template="{query} is answered by {document}")
    add_model(models, "prompted", prompted)
    add_model(models, "headless", tiny_reranker(work / "headless.gguf", has_head=False))
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    add_model(models, "tiny", tiny_llama(work / "tiny.gguf", chat_template=CHATML))
    with running_server(work / "home") as running:
        yield running


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    path = tiny_reranker(tmp_path_factory.mktemp("numpy") / "reranker.gguf", context_length=LENGTH)
    return [1 / (1 + math.exp(-tiny_reranker_score(path, QUERY, text))) for text in DOCUMENTS]


def rerank(server: RunningServer, route: str = "/api/rerank", **body: object) -> Answer:
    return post(server, route, {"model": "reranker", "query": QUERY, "documents": DOCUMENTS, **body})


def scores_of(answer: Answer) -> list[float]:
    """In the order of the documents."""
    assert answer.status == 200, answer.body
    return [row["relevance_score"] for row in sorted(answer.json["results"], key=lambda row: row["index"])]


@pytest.mark.parametrize("route", ROUTES)
def test_scores_are_those_that_numpy_computes_best_first(
    server: RunningServer, route: str, expected: list[float]
) -> None:
    answer = rerank(server, route)
    np.testing.assert_allclose(scores_of(answer), expected, atol=1e-3)
    assert np.ptp(expected) > 0.01
    found = [row["relevance_score"] for row in answer.json["results"]]
    assert found == sorted(found, reverse=True)
    tokens = sum(len(tiny_bert_tokens(QUERY)) + len(tiny_bert_tokens(text)) - 1 for text in DOCUMENTS)
    assert answer.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer.json["model"], answer.json["object"]) == ("reranker", "list")
    assert {frozenset(row) for row in answer.json["results"]} == {frozenset({"index", "relevance_score"})}


@pytest.mark.parametrize("route", ROUTES)
def test_the_best_documents_can_be_had_with_their_texts(
    server: RunningServer, route: str, expected: list[float]
) -> None:
    given = [text if place % 2 else {"text": text, "id": place} for place, text in enumerate(DOCUMENTS)]
    answer = rerank(server, route, documents=given, query={"text": QUERY}, top_n=2, return_documents=True)
    best = sorted(range(len(DOCUMENTS)), key=lambda place: -expected[place])[:2]
    assert [(row["index"], row["document"]) for row in answer.json["results"]] == [
        (place, {"text": DOCUMENTS[place]}) for place in best
    ]
    assert len(rerank(server, route, top_n=99).json["results"]) == len(DOCUMENTS)


def test_the_native_route_says_how_long_it_took(server: RunningServer) -> None:
    answer = rerank(server, keep_alive="1m").json
    assert 0 < answer["load_duration"] < answer["total_duration"]


def test_many_documents_come_back_with_their_scores(server: RunningServer) -> None:
    """They are computed in parts; two requests at once get their parts in turn, and neither mixes them up."""
    texts = [f"word {number} " + "and the sky " * (number % 7) for number in range(150)]
    with ThreadPoolExecutor(2) as pool:
        forwards, backwards = map(
            scores_of, pool.map(lambda given: rerank(server, documents=given), (texts, texts[::-1]))
        )
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-3)
    alone = [scores_of(rerank(server, documents=[texts[place]]))[0] for place in (0, 75, 149)]
    np.testing.assert_allclose([forwards[0], forwards[75], forwards[149]], alone, atol=1e-3)


def test_a_document_that_does_not_fit_is_cut(server: RunningServer) -> None:
    long = "the sky is blue and " * 200
    answer = rerank(server, documents=["cat", long, "dog"])
    assert len(scores_of(answer)) == 3
    query = len(tiny_bert_tokens(QUERY)) - 2
    room = LENGTH - query - 8
    assert answer.headers["x-corral-truncated-tokens"] == str(1000 - room)
    assert answer.json["usage"]["total_tokens"] == 3 * (query + 3) + 2 + room
    head = " ".join(long.split()[:room])
    np.testing.assert_allclose(scores_of(answer)[1], scores_of(rerank(server, documents=[head]))[0], atol=1e-3)


@pytest.mark.parametrize("route", ROUTES)
def test_a_document_that_may_not_be_cut_is_named(server: RunningServer, route: str) -> None:
    refused = rerank(server, route, documents=["cat", "the sky is blue and " * 200], truncate=False)
    assert refused.status == 400
    room = LENGTH - len(tiny_bert_tokens(QUERY)) + 2 - 8
    assert (
        f"document 1 has 1000 tokens, and beside the query {room} fit among the {LENGTH} that the model reads at once"
        in refused.body.decode()
    )


def test_a_document_that_only_the_engine_finds_too_long_is_named(server: RunningServer) -> None:
    """Marks spelled in a document are plain text to the engine, which has more tokens than were counted."""
    refused = rerank(server, documents=["cat", "[SEP]" * 150])
    assert refused.status == 400
    assert refused.error.startswith("document 1: input (")


def test_a_query_that_leaves_no_room_is_refused(server: RunningServer) -> None:
    refused = rerank(server, query="sky " * LENGTH)
    assert refused.status == 400
    assert refused.error == (
        f"the query has {LENGTH} tokens, which leaves no room for a document among the {LENGTH} that the model reads "
        "at once"
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"model": "tiny"}, '"tiny" does not support reranking'),
        ({"model": "bert"}, '"bert" does not support reranking'),
        ({"model": "headless"}, '"headless" does not support reranking'),
        ({"model": ""}, "model is required"),
        ({"query": ""}, "query must not be empty"),
        ({"query": 3}, 'query must be a text, or an object with a "text"'),
        ({"documents": []}, "documents must not be empty"),
        ({"documents": ["a", 3]}, 'documents[1] must be a text, or an object with a "text"'),
        ({"documents": [{"title": "a"}]}, 'documents[0] must be a text, or an object with a "text"'),
        ({"documents": ["a"] * 10_001}, "10001 documents are more than the 10000 that are ranked at once"),
        ({"top_n": 0}, "top_n is 0, not at least 1"),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_what_cannot_be_ranked_is_refused(
    server: RunningServer, route: str, body: dict[str, object], sentence: str
) -> None:
    refused = rerank(server, route, **body)
    error = refused.json["error"]
    assert refused.status == 400
    assert (error["message"] if route.startswith("/v1") else error) == sentence


@pytest.mark.parametrize(("route", "named"), [("/api/embed", "reranker"), ("/v1/embeddings", "headless")])
def test_a_reranker_makes_no_vectors(server: RunningServer, route: str, named: str) -> None:
    """Its engine would read beyond the scores for them."""
    refused = post(server, route, {"model": named, "input": "the sky"})
    error = refused.json["error"]
    sentence = error["message"] if route.startswith("/v1") else error
    assert (refused.status, sentence) == (400, f'"{named}" does not support embeddings, only reranking')


def test_a_query_does_not_multiply_a_document_in_the_prompt_of_a_model(server: RunningServer) -> None:
    """The engine fills both places of the model's template by replacing their names."""
    plain = rerank(server, model="prompted", query="why", documents=["sky " * 20])
    assert plain.json["usage"]["total_tokens"] == len(tiny_bert_tokens("why is answered by" + " sky" * 20)) - 2
    tricky = rerank(server, model="prompted", query="{document}{document}{query}", documents=["sky " * 20])
    assert len(scores_of(tricky)) == 1
    spelled = "{ document}{ document}{query} is answered by" + " sky" * 20
    assert tricky.json["usage"]["total_tokens"] == len(tiny_bert_tokens(spelled)) - 2


def test_a_reranker_is_loaded_once_for_all_it_can(server: RunningServer) -> None:
    """It tells its tokens as it is loaded for ranking, and says nothing."""
    assert rerank(server).status == 200
    found = post(server, "/api/tokenize", {"model": "reranker", "content": "the sky"})
    assert (found.status, found.json["tokens"]) == (200, tiny_bert_tokens("the sky")[1:-1])
    rows = ask(server, "GET", "/api/ps").json["models"]
    assert sum(row["name"] == "reranker:latest" for row in rows) == 1
    refused = post(server, "/api/generate", {"model": "reranker", "prompt": "why?"})
    assert (refused.status, refused.error) == (400, '"reranker" does not support generate')


def test_a_model_is_shown_with_the_capabilities_that_clients_know(server: RunningServer) -> None:
    assert post(server, "/api/show", {"model": "reranker"}).json["capabilities"] == ["embedding"]
