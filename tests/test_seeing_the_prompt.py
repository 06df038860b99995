"""The prompt itself, to look at: as Ollama's clients ask for it, and as those who write templates want to know it."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.asking import filtered, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_llama, tiny_llava
from tests.tool_templates import GO, JINJA, WEATHER


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Models with a Go template (`go`), with their own (`jinja`), and with eyes (`seeing`)."""
    home = tmp_path_factory.mktemp("prompts")
    with running_server(home) as server:
        add_model(server.models, "plain", tiny_llama(home / "plain.gguf"))
        add_model(server.models, "jinja", tiny_llama(home / "jinja.gguf", chat_template=JINJA))
        tiny_llava(home / "seeing.gguf", home / "eyes.gguf")
        add_model(server.models, "seeing", home / "seeing.gguf", home / "eyes.gguf")
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
        made = {"model": "go", "from": "plain", "template": GO, "system": "Be brief.", "messages": turns}
        assert post(server, "/api/create", {**made, "stream": False}).json == {"status": "success"}
        yield server


ASKED = [{"role": "user", "content": "Why?"}]
BEGIN = "<|im_start|>system\nBe brief.<|im_end|>\n"
TURNS = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
END = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("stream", [None, True, False])
def test_a_chat_shows_its_prompt(server: RunningServer, stream: bool | None) -> None:
    answer = post(server, "/api/chat", {"model": "go", "messages": ASKED, "stream": stream, "_debug_render_only": True})
    shown = (BEGIN + TURNS + END).replace("\n", "\\n").replace("<", "\\u003c").replace(">", "\\u003e")
    assert filtered(answer.body) == (
        '{"model":"go","created_at":"T","message":{"role":"","content":""},"done":false,'
        f'"_debug_info":{{"rendered_template":"{shown}"}}}}'
    )
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("more", "prompt"),
    [
        ({}, BEGIN + TURNS + END),
        ({"system": "Be long."}, BEGIN.replace("brief", "long") + TURNS + END),
        ({"raw": True}, "Why?"),
        ({"template": "{{ .Prompt }}|"}, None),
        ({"template": "{{ range .Messages }}[{{ .Role }}: {{ .Content }}]{{ end }}"}, None),
    ],
)
def test_a_single_prompt_shows_its_prompt(server: RunningServer, more: dict[str, Any], prompt: str | None) -> None:
    answer = post(server, "/api/generate", {"model": "go", "prompt": "Why?", "_debug_render_only": True, **more})
    assert (answer.status, answer.json["response"], answer.json["done"]) == (200, "", False)
    told = {
        "{{ .Prompt }}|": "Hello|Hi.Why?|",
        "{{ range .Messages }}[{{ .Role }}: {{ .Content }}]{{ end }}": (
            "[system: Be brief.][user: Hello][assistant: Hi.][user: Why?]"
        ),
    }
    assert answer.json["_debug_info"] == {"rendered_template": prompt or told[more["template"]]}


@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
def test_the_models_own_template_shows_its_prompt(server: RunningServer, route: str) -> None:
    question = {"messages": ASKED} if route == "/api/chat" else {"prompt": "Why?"}
    answer = post(server, route, {"model": "jinja", "_debug_render_only": True, **question})
    assert answer.json["_debug_info"] == {"rendered_template": END}


@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
def test_pictures_are_counted(server: RunningServer, route: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    pictures = [base64.b64encode(file.getvalue()).decode()] * 2
    question: dict[str, Any] = {"prompt": "a [img] b", "images": pictures}
    if route == "/api/chat":
        question = {"messages": [{"role": "user", "content": "a [img] b", "images": pictures}]}
    answer = post(server, route, {"model": "seeing", "_debug_render_only": True, **question})
    assert answer.json["_debug_info"] == {"rendered_template": "[img-1]a [img-0] b", "image_count": 2}


def test_whoever_writes_a_template_sees_what_becomes_of_it(server: RunningServer) -> None:
    answer = post(server, "/api/render", {"model": "go", "messages": ASKED})
    rendered = answer.json
    assert rendered == {
        "model": "go",
        "prompt": BEGIN + TURNS + END,
        "images": 0,
        "tokens": rendered["tokens"],
        "context_length": 2048,
        "truncated_tokens": 0,
        "template": "go",
        "messages": 4,
    }
    done = post(server, "/api/chat", {"model": "go", "messages": ASKED, "stream": False, "options": {"num_predict": 1}})
    assert rendered["tokens"] == done.json["prompt_eval_count"]


def test_the_models_own_template_is_seen_alike(server: RunningServer) -> None:
    rendered = post(server, "/api/render", {"model": "jinja", "messages": ASKED, "tools": [WEATHER]}).json
    assert (rendered["template"], rendered["messages"]) == ("jinja", 1)
    assert '"name": "get_weather"' in rendered["prompt"] or '"name":"get_weather"' in rendered["prompt"]
    assert rendered["prompt"].endswith(END)


@pytest.mark.parametrize("model", ["go", "jinja"])
def test_what_is_left_out_to_fit_is_seen(server: RunningServer, model: str) -> None:
    turns = [{"role": role, "content": "so it is " * 40} for role in ("user", "assistant") * 5]
    asked = {"model": model, "messages": [*turns, *ASKED], "options": {"num_ctx": 400}}
    rendered = post(server, "/api/render", asked).json
    whole = post(server, "/api/render", {**asked, "truncate": False}).json
    assert rendered["context_length"] == 400
    assert rendered["tokens"] <= 400 < whole["tokens"]
    assert rendered["tokens"] + rendered["truncated_tokens"] == whole["tokens"]
    assert rendered["messages"] < whole["messages"]
    assert rendered["prompt"].endswith(END)
    assert whole["truncated_tokens"] == 0


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "go"}, 400, "messages are missing"),
        ({"model": "go", "messages": [], "keep_alive": 0}, 400, "messages are missing"),
        ({"messages": ASKED}, 400, "model is required"),
        ({"model": "nobody", "messages": ASKED}, 404, "model 'nobody' not found"),
        ({"model": "plain", "messages": ASKED, "tools": [WEATHER]}, 400, None),
        ({"model": "go", "messages": ASKED, "think": True}, 400, '"go" does not support thinking'),
    ],
)
def test_what_cannot_be_rendered_is_refused_as_a_chat_is(
    server: RunningServer, body: dict[str, Any], status: int, error: str | None
) -> None:
    answer = post(server, "/api/render", body)
    expected = error or "registry.ollama.ai/library/plain:latest does not support tools"
    assert (answer.status, answer.json) == (status, {"error": expected})
