"""A chat template in a model's file that the engine cannot run: only what needs it fails, and says why."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import Answer, InBackground, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_bert, tiny_llama
from tests.tool_templates import WEATHER

CANNOT = "the model's chat template cannot be run: "

BROKEN = {
    "unclosed": ("{{ messages[0].content", "parser: Parser Error: Expected }} (Got )"),
    "statement": ("{% include 'other' %}", "Unknown statement: include"),
    "filter": ("{{ messages | wonder }}", "Unknown (built-in) filter 'wonder' for type Array"),
    "test": ("{% if messages is wonder %}{% endif %}", "Unknown test 'wonder'"),
    "function": ("{{ wonder(messages) }}", "Callee is not a function: got Undefined (hint: 'wonder')"),
    "refusal": ("{{ raise_exception('not with me') }}", "not with me"),
    "tools": (
        "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages | length(",
        "parser: Parser Error: Unexpected EOF",
    ),
    "crash": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "signal: "),
}
"""Templates, and the engine's reasons."""

LATE = "{% if 'now' in messages[-1].content %}{{ wonder(messages) }}{% endif %}{{ messages[-1].content }}"
"""It fails for some conversations only."""

LATE_TOOLS = "{% if tools %}{{ wonder(tools) }}{% endif %}{{ messages[-1].content }}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("broken")
    models = work / "home" / ".ollama" / "models"
    templates = {name: jinja for name, (jinja, _) in BROKEN.items()} | {"late": LATE, "late-tools": LATE_TOOLS}
    for seed, (name, jinja) in enumerate(templates.items()):
        add_model(models, name, tiny_llama(work / f"{seed}.gguf", seed=seed, chat_template=jinja))
    add_model(models, "bert", tiny_bert(work / "bert.gguf", chat_template=BROKEN["unclosed"][0]))
    with running_server(work / "home", OLLAMA_MAX_LOADED_MODELS="3") as running:
        yield running


def chat(server: RunningServer, model: str, content: str = "hello", **more: Any) -> Answer:
    messages = [{"role": "user", "content": content}]
    options = {"num_predict": 2, "num_thread": 1}
    return post(
        server, "/api/chat", {"model": model, "messages": messages, "stream": False, "options": options, **more}
    )


def generate(server: RunningServer, model: str, **more: Any) -> Answer:
    options = {"num_predict": 2, "num_thread": 1, "temperature": 0}
    asked = {"model": model, "prompt": "hello", "stream": False, "options": options, **more}
    return post(server, "/api/generate", asked)


def unload(server: RunningServer, model: str) -> None:
    assert generate(server, model, prompt="", keep_alive=0).json["done_reason"] == "unload"


def workers(server: RunningServer) -> int:
    """How many there were, by the lines in which the server says that one has loaded or was given up for another."""
    text = server.log.read_text()
    return text.count(" loaded in ") + text.count(" only requests that do not need it are served")


@pytest.mark.parametrize("model", BROKEN)
def test_only_what_needs_the_template_fails_and_says_why(server: RunningServer, model: str) -> None:
    reason = CANNOT + BROKEN[model][1]
    assert generate(server, model, raw=True).json["eval_count"] == 2
    for answer in (chat(server, model), chat(server, model, format="json"), generate(server, model)):
        assert answer.status == 500
        assert answer.error.startswith(reason)
    own = generate(server, model, template="<{{ .Prompt }}>", _debug_render_only=True)
    assert own.json["_debug_info"]["rendered_template"] == "<hello>"
    assert generate(server, model, template="<{{ .Prompt }}>").json["eval_count"] == 2
    vectors = post(server, "/api/embed", {"model": model, "input": ["one", "two"]})
    assert len(vectors.json["embeddings"]) == 2


def test_a_template_of_a_modelfile_takes_its_place(server: RunningServer) -> None:
    made = {"model": "mended", "from": "filter", "template": "[{{ .Prompt }}]", "stream": False}
    assert post(server, "/api/create", made).json == {"status": "success"}
    assert chat(server, "mended").status == 200
    shown = chat(server, "mended", _debug_render_only=True)
    assert shown.json["_debug_info"]["rendered_template"] == "[hello]"
    assert chat(server, "filter").error == CANNOT + BROKEN["filter"][1]
    assert chat(server, "mended").status == 200


def test_a_model_that_embeds_needs_no_chat_template(server: RunningServer) -> None:
    before = workers(server)
    answer = post(server, "/api/embed", {"model": "bert", "input": ["the sky", "is blue"]})
    assert (answer.status, len(answer.json["embeddings"])) == (200, 2)
    assert workers(server) == before + 1


def test_requests_that_need_it_and_that_do_not_share_a_load(server: RunningServer) -> None:
    unload(server, "test")
    calls = [
        InBackground(lambda: chat(server, "test")),
        InBackground(lambda: generate(server, "test", raw=True)),
        InBackground(lambda: chat(server, "test", stream=True)),
    ]
    refused, answered, streamed = (call.result() for call in calls)
    assert (answered.status, refused.status, streamed.status) == (200, 500, 500)
    assert refused.error == streamed.error == CANNOT + BROKEN["test"][1]


def test_a_template_is_not_tried_again_at_the_next_load(server: RunningServer) -> None:
    assert generate(server, "statement", raw=True).status == 200
    unload(server, "statement")
    before = workers(server)
    assert chat(server, "statement").error == CANNOT + BROKEN["statement"][1]
    assert generate(server, "statement", raw=True).status == 200
    assert workers(server) == before + 1


def test_what_the_template_says_of_the_model_stays(server: RunningServer) -> None:
    """It names tools, so they may be given; then it fails as without them."""
    template, reason = BROKEN["tools"]
    shown = post(server, "/api/show", {"model": "tools"}).json
    assert (shown["template"], set(shown["capabilities"])) == (template, {"completion", "tools"})
    assert chat(server, "tools", tools=[WEATHER]).error == CANNOT + reason
    assert "does not support tools" in chat(server, "filter", tools=[WEATHER]).error


@pytest.mark.parametrize(("model", "asked"), [("late", {"content": "now"}), ("late-tools", {"tools": [WEATHER]})])
def test_a_template_that_fails_for_one_conversation_fails_that_only(
    server: RunningServer, model: str, asked: dict[str, Any]
) -> None:
    assert chat(server, model).status == 200
    before = workers(server)
    answer = chat(server, model, **asked)
    assert answer.status >= 400
    assert "Callee is not a function: got Undefined (hint: 'wonder')" in answer.error
    assert chat(server, model).status == 200
    assert workers(server) == before
