"""Conversations that outgrow the context: what is kept, what is told of it, and what the prompt cache still knows."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.asking import Answer, metric, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_llama, tiny_llava
from tests.tool_templates import GO, JINJA

MODELS = ("go", "jinja")

STRICT = """{% for message in messages %}
{% if (message.role == 'user') != (loop.index0 % 2 == 0) and message.role != 'tool' %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{{ '[' + message.role + ']' + message.content + '[/' + message.role + '] ' }}{% endfor %}"""
"""As published templates of Gemma and Mistral, wants a question first and turns to be taken."""

STRICT_GO = """{{- if ne (index .Messages 0).Role "user" }}{{ index .Messages -1 }}{{ end }}
{{- range .Messages }}[{{ .Role }}]{{ .Content }}[/{{ .Role }}] {{ end }}"""
"""The same in Go, which has no way to refuse but to fail."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("truncation")
    with running_server(home) as server:
        add_model(server.models, "plain", tiny_llama(home / "plain.gguf"))
        add_model(server.models, "jinja", tiny_llama(home / "jinja.gguf", chat_template=JINJA))
        add_model(server.models, "strict-jinja", tiny_llama(home / "strict.gguf", chat_template=STRICT))
        tiny_llava(home / "seeing.gguf", home / "eyes.gguf", chat_template=JINJA)
        add_model(server.models, "seeing", home / "seeing.gguf", home / "eyes.gguf")
        for name, text in (("go", GO), ("strict-go", STRICT_GO)):
            made = {"model": name, "from": "plain", "template": text, "stream": False}
            assert post(server, "/api/create", made).json == {"status": "success"}
        yield server


def turn(number: int, role: str = "user", words: int = 20) -> dict[str, Any]:
    return {"role": role, "content": f"number {number}: " + "hello " * words}


def chat(server: RunningServer, model: str, messages: list[Any], num_ctx: int = 400, **more: Any) -> Answer:
    options = {"num_predict": 1, "num_thread": 1, "temperature": 0, "num_ctx": num_ctx}
    return post(
        server, "/api/chat", {"model": model, "messages": messages, "stream": False, "options": options, **more}
    )


def shown(server: RunningServer, model: str, messages: list[Any], **more: Any) -> str:
    answer = chat(server, model, messages, _debug_render_only=True, **more)
    return str(answer.json["_debug_info"]["rendered_template"])


@pytest.mark.parametrize("model", MODELS)
def test_the_oldest_turns_go_but_system_and_question_stay(server: RunningServer, model: str) -> None:
    messages = [turn(number, "assistant" if number % 2 else "user") for number in range(20)]
    messages.insert(0, {"role": "system", "content": "You keep promises."})
    messages.insert(7, {"role": "system", "content": "Even late ones."})
    prompt = shown(server, model, [*messages, {"role": "user", "content": "The question"}])
    kept = [number for number in range(20) if f"number {number}:" in prompt]
    assert 0 < len(kept) < 20
    assert kept == list(range(20 - len(kept), 20))
    assert all(text in prompt for text in ("You keep promises.", "Even late ones.", "The question"))


@pytest.mark.parametrize("model", ["strict-go", "strict-jinja"])
@pytest.mark.parametrize("length", range(9, 21, 2))
def test_a_template_that_wants_a_question_first_gets_one(server: RunningServer, model: str, length: int) -> None:
    messages = [turn(number, "assistant" if number % 2 else "user", words=20 + number) for number in range(length)]
    prompt = shown(server, model, messages)
    kept = [number for number in range(length) if f"number {number}:" in prompt]
    assert prompt.lstrip().startswith(f"[user]number {kept[0]}:")
    assert kept == list(range(kept[0], length))
    assert kept[0] > 0


@pytest.mark.parametrize("model", ["strict-go", "strict-jinja"])
def test_a_conversation_that_ends_in_no_question_keeps_its_last_one(server: RunningServer, model: str) -> None:
    messages = [turn(0), turn(1, "assistant"), turn(2), turn(3, "assistant"), turn(4, "tool")]
    assert "number 2:" in shown(server, model, messages, num_ctx=200)
    messages[-1] = turn(4, "tool", words=2000)
    answer = chat(server, model, messages, num_ctx=200)
    if model == "strict-jinja":
        assert (answer.status, "exceeds the available context size" in answer.error) == (400, True)
    else:
        assert (answer.status, answer.json["prompt_eval_count"] < 200) == (200, True)


def test_a_conversation_that_is_refused_whole_is_refused(server: RunningServer) -> None:
    answer = chat(server, "strict-jinja", [turn(0, "assistant"), turn(1)], num_ctx=2048)
    told = "the model's template refuses the conversation: Conversation roles must alternate user/assistant/"
    assert (answer.status, answer.error.startswith(told)) == (400, True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_left_out_is_told_counted_and_logged(server: RunningServer, model: str, stream: bool) -> None:
    before = metric(server, "corral_prompt_truncations_total"), metric(server, "corral_prompt_truncated_tokens_total")
    answer = chat(server, model, [turn(number) for number in range(20)], stream=stream)
    left_out = int(answer.headers["x-corral-truncated-tokens"])
    assert left_out > 200
    assert answer.lines[-1]["prompt_eval_count"] <= 400
    after = metric(server, "corral_prompt_truncations_total"), metric(server, "corral_prompt_truncated_tokens_total")
    assert (after[0] - before[0], after[1] - before[1]) == (1, left_out)
    assert f"prompt cut by {left_out} tokens to fit the context" in server.log.read_text()


@pytest.mark.parametrize("model", MODELS)
def test_what_fits_is_told_of_by_nothing(server: RunningServer, model: str) -> None:
    answer = chat(server, model, [turn(1)])
    assert "x-corral-truncated-tokens" not in answer.headers


def test_a_question_that_is_too_long_loses_its_middle(server: RunningServer) -> None:
    answer = chat(server, "go", [turn(1, words=600)])
    assert answer.status == 200
    assert answer.json["prompt_eval_count"] + int(answer.headers["x-corral-truncated-tokens"]) > 600
    assert answer.json["prompt_eval_count"] < 400


@pytest.mark.parametrize("model", MODELS)
def test_what_may_not_be_cut_is_refused(server: RunningServer, model: str) -> None:
    answer = chat(server, model, [turn(number) for number in range(20)], truncate=False)
    assert answer.status == 400
    assert answer.error.startswith("request (")
    assert answer.error.endswith(" tokens) exceeds the available context size (400 tokens), try increasing it")


def test_a_question_that_is_too_long_may_not_be_shifted(server: RunningServer) -> None:
    answer = chat(server, "go", [turn(1, words=600)], shift=False)
    expected = "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    assert (answer.status, answer.error.startswith(expected)) == (400, True)


def test_pictures_count_while_a_conversation_is_cut(server: RunningServer) -> None:
    """Each for 768 tokens, so that two of four fit into 2048."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    messages = [{"role": "user", "content": f"picture {number}", "images": [picture]} for number in range(4)]
    answer = chat(server, "seeing", messages, num_ctx=2048, _debug_render_only=True)
    prompt = answer.json["_debug_info"]
    assert [number for number in range(4) if f"picture {number}" in prompt["rendered_template"]] == [2, 3]
    assert prompt["image_count"] == 2
    assert [f"[img-{number}]" in prompt["rendered_template"] for number in range(3)] == [True, True, False]


@pytest.mark.parametrize("model", MODELS)
def test_the_second_turn_finds_the_first_in_the_cache(server: RunningServer, model: str) -> None:
    first = [{"role": "user", "content": f"A question about {model}. " + "hello world " * 60}]
    answer = chat(server, model, first, num_ctx=2048)
    length = answer.json["prompt_eval_count"]
    before = metric(server, "corral_prefix_cache_hits_total")
    second = [*first, answer.json["message"], {"role": "user", "content": "And then?"}]
    assert chat(server, model, second, num_ctx=2048).json["prompt_eval_count"] > length
    found = metric(server, "corral_prefix_cache_hits_total") - before
    assert length * 0.9 <= found <= length + 1
