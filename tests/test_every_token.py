"""Every token and every character of an answer arrives: in `context`, in `logprobs`, in the text at the limit."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import post
from tests.conftest import RunningServer, add_model, running_server
from tests.speakers import speaker

JINJA = "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}[assistant]"
PIECES = ("Hi ", "天".encode(), "🦜".encode(), " two", " words")
SAID, TOKENS = "Hi 天🦜 two words", 10 + 1
"""The text, and its tokens with the one that ends the answer."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("tokens")
    with running_server(home) as server:
        add_model(server.models, "plain", speaker(home / "plain.gguf", *PIECES))
        add_model(server.models, "jinja", speaker(home / "jinja.gguf", *PIECES, chat_template=JINJA))
        yield server


def answer(server: RunningServer, path: str, body: dict[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """The text, the log probabilities and the last line of an answer."""
    if path == "/api/chat":
        body = {**body, "messages": [{"role": "user", "content": body["prompt"]}]}
    found = post(server, path, body)
    assert found.status == 200, found.body
    texts = [line["message"]["content"] if path == "/api/chat" else line["response"] for line in found.lines]
    return "".join(texts), [item for line in found.lines for item in line.get("logprobs", [])], found.lines[-1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["plain", "jinja"])
def test_the_context_holds_every_token_and_is_read_next(server: RunningServer, model: str, stream: bool) -> None:
    body = {"model": model, "prompt": "Say it.", "stream": stream}
    text, _, last = answer(server, "/api/generate", body)
    assert (text, last["eval_count"]) == (SAID, TOKENS)
    assert len(last["context"]) == last["prompt_eval_count"] + last["eval_count"]
    again = {**body, "context": last["context"], "stream": False, "_debug_render_only": True}
    prompt = post(server, "/api/generate", again).json["_debug_info"]["rendered_template"]
    assert f"{SAID}<|im_end|>" in prompt
    second = answer(server, "/api/generate", {**body, "context": last["context"]})[2]
    assert len(second["context"]) == second["prompt_eval_count"] + second["eval_count"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["plain", "jinja"])
def test_every_token_has_a_log_probability(server: RunningServer, model: str, stream: bool, path: str) -> None:
    options = {"num_predict": 10}
    body = {"model": model, "prompt": "Say it.", "stream": stream, "logprobs": True, "options": options}
    text, logprobs, last = answer(server, path, body)
    assert len(logprobs) == last["eval_count"] == 10
    assert bytes(byte for item in logprobs for byte in item["bytes"]).decode() == text == SAID


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["plain", "jinja"])
@pytest.mark.parametrize(
    ("stop", "limit"),
    [(" words and more", 10), (" two four", 9), ("🦜 two w!", 9), ("🦜!", 8), ("天🦜!", 8), ("天🦜 two words!", 10)],
)
def test_what_might_have_become_a_stop_word_is_said(
    server: RunningServer, model: str, stream: bool, path: str, stop: str, limit: int
) -> None:
    options = {"num_predict": limit, "stop": [stop, "never"]}
    text, _, last = answer(server, path, {"model": model, "prompt": "Say it.", "stream": stream, "options": options})
    assert (text, last["done_reason"], last["eval_count"]) == (SAID[: {8: 5, 9: 9, 10: 15}[limit]], "length", limit)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("model", ["plain", "jinja"])
@pytest.mark.parametrize("stop", ["天", "🦜", "天🦜 t", "wo wor"])
def test_a_stop_word_still_ends_the_answer(server: RunningServer, model: str, path: str, stop: str) -> None:
    body = {"model": model, "prompt": "Say it.", "stream": False, "options": {"stop": [stop]}}
    text, _, last = answer(server, path, body)
    assert (text, last["done_reason"]) == (SAID[: SAID.index(stop)], "stop")
    assert 0 < last["eval_count"] < TOKENS
