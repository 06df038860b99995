"""Models whose configuration names a renderer and a parser of Ollama's, through the server: tools asked for, called and
answered; what the models can do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from corral import parsers
from tests.asking import ask, post
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, environment, running_server
from tests.published_models import FAMILIES as PUBLISHED
from tests.speakers import speaker
from tests.test_parser_families import BY_NAME, GLM_OSLO
from tests.test_parsers import BY_NAME as OTHERS
from tests.test_parsers import TOOLS, Answer, call
from tests.tiny_models import tiny_llama

MISTRAL = (
    "{{ if .Tools }}[AVAILABLE_TOOLS]{{ .Tools }}[/AVAILABLE_TOOLS]{{ end }}{{ range .Messages }}"
    '{{ if eq .Role "user" }}[INST]{{ .Content }}[/INST]{{ else if eq .Role "tool" }}[TOOL_RESULTS]{{ .Content }}'
    "[/TOOL_RESULTS]{{ else }}{{ .Content }}{{ range .ToolCalls }}[TOOL_CALLS]{{ .Function.Name }}[ARGS]"
    "{{ .Function.Arguments }}{{ end }}{{ end }}{{ end }}"
)


def example(name: str) -> tuple[str, Answer]:
    """What a model says, and what it amounts to."""
    _, said, answer = OTHERS[name] if name in OTHERS else BY_NAME[name][1:]
    return said, answer


FAMILIES: dict[str, tuple[str, str, str]] = {
    # a model: its renderer, its parser, what it says
    "mistral": ("", "ministral", "Mistral"),
    "qwen3": ("qwen3-vl-thinking", "qwen3-vl-thinking", "Qwen 3"),
    "coder": ("qwen3-coder", "qwen3-coder", "Qwen calls after words, with values as the schema says"),
    "qwen35": ("qwen3.5", "qwen3.5", "Qwen thinks, answers and calls"),
    "deepseek": ("deepseek3.1", "deepseek3", "DeepSeek"),
    "cogito": ("cogito", "cogito", "Cogito without arguments"),
    "gemma": ("gemma4", "gemma4", "a Gemma call"),
    "functiongemma": ("functiongemma", "functiongemma", "FunctionGemma"),
    "glm": ("glm-4.7", "glm-4.7", "GLM"),
    "ocr": ("glm-ocr", "glm-ocr", "GLM on both sides of a call"),
    "laguna": ("laguna", "laguna", "Laguna"),
    "lfm": ("lfm2-thinking", "lfm2-thinking", "LFM2"),
    "olmo": ("olmo3", "olmo3", "OLMo"),
    "command": ("cohere", "cohere", "Cohere"),
    "glimmer": ("glimmer", "glimmer", "Glimmer"),
}
OFFERED = [
    {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
    }
    for tool in TOOLS
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("named")
    add_model(home / ".ollama" / "models", "plain", tiny_llama(home / "plain.gguf"))
    with running_server(home, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        for model, (renderer, parser, _) in FAMILIES.items():
            made = {"model": model, "from": "plain", "renderer": renderer, "parser": parser, "stream": False}
            made |= {"template": MISTRAL} if not renderer else {}
            assert post(server, "/api/create", made).json == {"status": "success"}
        yield server


def collected(messages: list[dict[str, Any]]) -> Answer:
    """What the messages of a stream, or the one of an answer, amount to."""
    calls = [one["function"] for message in messages for one in message.get("tool_calls", [])]
    return Answer(
        "".join(message["content"] for message in messages),
        "".join(message.get("thinking", "") for message in messages),
        tuple(call(one["name"], one["index"], **one["arguments"]) for one in calls),
    )


@pytest.mark.parametrize("model", FAMILIES)
def test_a_model_calls_tools_and_is_told_the_results(server: RunningServer, model: str) -> None:
    said, expected = example(FAMILIES[model][2])
    thinks = "thinking" in parsers.capabilities(FAMILIES[model][1])
    order = {
        "role": "user",
        "content": "!say=" + "|".join(quote(said[at : at + 7], safe="") for at in range(0, len(said), 7)),
    }
    asked = {"model": model, "messages": [order], "tools": OFFERED, **({"think": True} if thinks else {})}
    streamed = post(server, "/api/chat", asked).lines
    assert collected([line["message"] for line in streamed]) == expected
    assert len(streamed) > 2
    history = [
        {"role": "user", "content": "What is it like in Oslo?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}]},
        {"role": "tool", "tool_name": "get_weather", "content": "11 C"},
    ]
    whole = post(server, "/api/chat", {**asked, "messages": [*history, order], "stream": False})
    assert (whole.status, collected([whole.json["message"]])) == (200, expected)


def test_an_answer_fits_a_schema_whatever_the_family(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    asked = {"messages": [{"role": "user", "content": "Where?"}], "format": schema, "stream": False}
    answers = {model: post(server, "/api/chat", {**asked, "model": model}).json for model in FAMILIES}
    assert {
        model for model, answer in answers.items() if "city" not in json.loads(answer["message"]["content"])
    } == set()


@pytest.mark.parametrize("model", FAMILIES)
def test_what_a_parser_reads_is_among_the_capabilities(server: RunningServer, model: str) -> None:
    renderer, parser, _ = FAMILIES[model]
    shown = post(server, "/api/show", {"model": model}).json
    assert shown["capabilities"] == ["completion", *parsers.capabilities(parser)]
    assert f"PARSER {parser}\n" in shown["modelfile"]
    assert (f"RENDERER {renderer}\n" in shown["modelfile"]) == bool(renderer)
    tagged = next(one for one in ask(server, "GET", "/api/tags").json["models"] if one["name"] == f"{model}:latest")
    assert tagged["capabilities"] == shown["capabilities"]


def test_show_prints_the_capabilities(server: RunningServer) -> None:
    command = [sys.executable, "-m", "corral", "show", "laguna"]
    shown = subprocess.run(
        command, env=environment(server.home, server.host, {}), capture_output=True, text=True, timeout=60
    )
    lines = [line.strip() for line in shown.stdout.splitlines()]
    begin = lines.index("Capabilities")
    assert lines[begin + 1 : begin + 4] == ["completion", "tools", "thinking"]


def test_a_real_engine_answers_with_a_renderer(tmp_path: Path) -> None:
    """One that says a call, whose marks are special tokens; and a file that had to be derived, which says anything."""
    pieces = ("<tool_call>", "get_weather", "<arg_key>", "city", "</arg_key>", "<arg_value>", "Oslo", "</arg_value>")
    special = dict.fromkeys(("<tool_call>", "</tool_call>"), "control")
    file = speaker(tmp_path / "glm.gguf", *pieces, "</tool_call>", special=special)
    add_model(tmp_path / ".ollama" / "models", "plain", file)
    add_model(tmp_path / ".ollama" / "models", "published", PUBLISHED["lfm2"](tmp_path).published)
    with running_server(tmp_path) as server:
        for model, source, name in (("glm", "plain", "glm-ocr"), ("lfm", "published", "lfm2-thinking")):
            made = {"model": model, "from": source, "renderer": name, "parser": name, "stream": False}
            assert post(server, "/api/create", made).json == {"status": "success"}
        asked: dict[str, Any] = {"model": "glm", "messages": [{"role": "user", "content": "Hi"}], "tools": OFFERED}
        expected = Answer(calls=(call("get_weather", city="Oslo"),))
        assert "".join((*pieces, "</tool_call>")) == GLM_OSLO
        assert collected([line["message"] for line in post(server, "/api/chat", asked).lines]) == expected
        assert collected([post(server, "/api/chat", {**asked, "stream": False}).json["message"]]) == expected
        asked |= {"model": "lfm", "tools": OFFERED[-1:], "options": {"num_predict": 8}, "think": True}
        last = post(server, "/api/chat", asked).lines[-1]
        assert (last["done"], last["eval_count"], last.get("error")) == (True, 8, None)
        loaded = next(one for one in ask(server, "GET", "/api/ps").json["models"] if one["name"] == "lfm:latest")
        assert loaded["derived"]["size"] > 0
