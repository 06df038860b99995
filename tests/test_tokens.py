"""Texts as tokens and back, over the fake engine."""

from collections.abc import Iterator

import pytest

from tests.asking import post
from tests.conftest import RunningServer
from tests.dialects import dialect_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with dialect_server(tmp_path_factory.mktemp("tokens")) as server:
        yield server


@pytest.mark.parametrize("model", ["tiny", "bert"])
def test_a_text_becomes_tokens_and_a_text_again(server: RunningServer, model: str) -> None:
    answer = post(server, "/api/tokenize", {"model": model, "content": "one two 三"}).json
    assert list(answer) == ["model", "tokens", "count", "total_duration", "load_duration"]
    assert answer["count"] == len(answer["tokens"]) > 2
    back = post(server, "/api/detokenize", {"model": model, "tokens": answer["tokens"]}).json
    assert (list(back), back["content"]) == (["model", "content", "total_duration", "load_duration"], "one two 三")


@pytest.mark.parametrize("name", ["text", "prompt"])
def test_other_servers_names_for_the_text(server: RunningServer, name: str) -> None:
    assert post(server, "/api/tokenize", {"model": "tiny", name: "one two"}).json["count"] == 2


def test_nothing_becomes_nothing(server: RunningServer) -> None:
    assert post(server, "/api/tokenize", {"model": "tiny"}).json["tokens"] == []
    assert post(server, "/api/detokenize", {"model": "tiny"}).json["content"] == ""


@pytest.mark.parametrize("token", [-1, 10**7])
def test_what_is_no_token(server: RunningServer, token: int) -> None:
    answer = post(server, "/api/detokenize", {"model": "tiny", "tokens": [token]})
    assert answer.status == 400
    assert answer.error.startswith(f"{token} is no token of the model")


def test_a_model_that_is_not_there(server: RunningServer) -> None:
    for path in ("/api/tokenize", "/api/detokenize"):
        answer = post(server, path, {"model": "nope"})
        assert (answer.status, answer.error) == (404, "model 'nope' not found")
