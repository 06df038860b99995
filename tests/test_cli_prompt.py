"""`show --prompt`, the real command against a real server: the prompt itself, and a line about it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asking import post
from tests.commands import Outcome, Shell
from tests.conftest import RunningServer, add_model, running_server
from tests.fake_server import FakeServer
from tests.tiny_models import tiny_llama
from tests.tool_templates import GO, JINJA, WEATHER

ASKED = [{"role": "user", "content": "Warum 天?"}]
TURNS = (
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n"
    "<|im_start|>assistant\nBecause air scatters blue light more than red.<|im_end|>\n"
    "<|im_start|>user\nAnd at sunset?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
HINT = (
    "--prompt takes a conversation in JSON, from a file or piped: "
    """echo '[{"role": "user", "content": "Why?"}]' | corral show MODEL --prompt\n"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Models with a Go template (`go`) and with their own (`jinja`)."""
    home = tmp_path_factory.mktemp("prompts")
    with running_server(home) as server:
        add_model(server.models, "plain", tiny_llama(home / "plain.gguf"))
        add_model(server.models, "jinja", tiny_llama(home / "jinja.gguf", chat_template=JINJA))
        made = {"model": "go", "from": "plain", "template": GO, "parameters": {"num_predict": 4}, "stream": False}
        assert post(server, "/api/create", made).json == {"status": "success"}
        yield server


@pytest.fixture
def shell(server: RunningServer, tmp_path: Path) -> Shell:
    return Shell(tmp_path, server.host)


def rendered(server: RunningServer, model: str, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = post(server, "/api/render", {"model": model, **request}).json
    return answer


@pytest.mark.parametrize(
    ("model", "template"), [("go", "the Go template"), ("jinja", "the model's own (Jinja) template")]
)
def test_a_sample_conversation_is_shown_as_either_template_writes_it(shell: Shell, model: str, template: str) -> None:
    shown = shell.run("show", model, "--prompt")
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert (shown.status, shown.stdout) == (0, system + TURNS)
    tokens, rest = shown.stderr.split(" ", 1)
    assert int(tokens) > 30
    assert rest == f"tokens of a context of 2048, 4 messages, nothing left out, rendered by {template}\n"


def test_a_file_a_pipe_and_standard_input_give_the_same_prompt(shell: Shell, server: RunningServer) -> None:
    prompt = rendered(server, "go", messages=ASKED)
    line = f"{prompt['tokens']} tokens of a context of 2048, 1 message, nothing left out, rendered by the Go template\n"
    expected = Outcome(0, prompt["prompt"], line)
    assert prompt["prompt"] == "<|im_start|>user\nWarum 天?<|im_end|>\n<|im_start|>assistant\n"
    text = json.dumps(ASKED)
    (shell.home / "asked.json").write_text(text)
    assert shell.run("show", "go", "--prompt", "asked.json") == expected
    assert shell.run("show", "--prompt", "go", str(shell.home / "asked.json"), stdin="[]") == expected
    assert shell.run("show", "go", "--prompt", stdin=text) == expected
    assert shell.run("show", "go", "--prompt", "-", stdin=text) == expected
    assert shell.run("show", "go", "--prompt=asked.json", stdin="[]") == expected
    assert shell.run("show", "--prompt=-", "go", stdin=text) == expected


@pytest.mark.parametrize("model", ["go", "jinja"])
def test_a_whole_request_is_shown_with_its_tools_and_what_does_not_fit(
    shell: Shell, server: RunningServer, model: str
) -> None:
    turns = [{"role": role, "content": "so it is " * 40} for role in ("user", "assistant") * 5]
    request = {"messages": [*turns, *ASKED], "tools": [WEATHER], "options": {"num_ctx": 600}}
    asked = json.dumps({"model": "another", "stream": True, **request})
    shown = shell.run("show", model, "--prompt", stdin=asked)
    prompt = rendered(server, model, **request)
    assert (shown.status, shown.stdout) == (0, prompt["prompt"])
    assert "get_weather" in shown.stdout
    assert prompt["truncated_tokens"] > 0
    assert shown.stderr.startswith(
        f"{prompt['tokens']} tokens of a context of 600, {prompt['messages']} messages, "
        f"{prompt['truncated_tokens']} tokens left out to fit, rendered by "
    )


def test_in_a_terminal_the_line_stands_on_a_line_of_its_own_and_nothing_steers(shell: Shell) -> None:
    (shell.home / "asked.json").write_text(json.dumps([{"role": "user", "content": "a\x1b]52;c;AAAA\x07b"}]))
    shown = shell.terminal("show", "go", "--prompt", str(shell.home / "asked.json")).finish()
    assert (shown.status, shown.stdout) == (
        0,
        "<|im_start|>user\na]52;c;AAAAb<|im_end|>\n<|im_start|>assistant\n",
    )
    assert shell.terminal("show", "go", "--prompt").finish().stdout.endswith(TURNS)


def test_the_summary_says_what_was_left_out_of_the_prompt(shell: Shell, server: RunningServer) -> None:
    words = "so it is " * 2000
    answered = shell.run("run", "go", stdin=words)
    left_out = post(server, "/api/generate", {"model": "go", "prompt": words}).headers["x-corral-truncated-tokens"]
    assert int(left_out) > 0
    warning = f"Warning: {left_out} tokens of the prompt left out to fit the context\n"
    assert (answered.status, answered.stderr) == (0, warning)
    assert shell.run("run", "go", "Why?").stderr == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Why is the sky blue?", "is no JSON: expecting value in line 1, column 1"),
        ('{"messages": [1]}', "is neither a list of messages nor a chat request that has one"),
        ('{"prompt": "Why?"}', "is neither a list of messages nor a chat request that has one"),
        ('"Why?"', "is neither a list of messages nor a chat request that has one"),
        ("[]", "has no messages in it"),
        ("[" * 100_000, "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
    ],
)
def test_what_is_no_conversation_is_refused_with_an_example(shell: Shell, text: str | bytes, sentence: str) -> None:
    assert shell.run("show", "go", "--prompt", stdin=text) == Outcome(
        1, "", f"Error: standard input {sentence}\n{HINT}"
    )


def test_the_text_of_a_question_is_no_file(shell: Shell) -> None:
    refused = shell.run("show", "go", "--prompt", "Why is the sky blue?")
    assert refused == Outcome(1, "", f'Error: no such file: "Why is the sky blue?"\n{HINT}')
    refused = shell.run("show", "go", "--prompt", str(shell.home))
    assert refused == Outcome(1, "", f'Error: cannot read "{shell.home}": is a directory\n{HINT}')


def test_what_the_server_refuses_is_an_error(shell: Shell) -> None:
    assert shell.run("show", "nobody", "--prompt") == Outcome(1, "", "Error: model 'nobody' not found\n")
    thinking = json.dumps({"messages": ASKED, "think": True})
    refused = shell.run("show", "go", "--prompt", stdin=thinking)
    assert refused == Outcome(1, "", 'Error: "go" does not support thinking\n')


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["go", "x"], "accepts 1 arg(s), received 2"),
        (["--prompt"], "accepts between 1 and 2 arg(s), received 0"),
        (["go", "--prompt=a", "b"], "accepts 1 arg(s), received 2"),
        (["go", "--prompt", "a", "b"], "accepts between 1 and 2 arg(s), received 3"),
        (["go", "--prompt", "--template"], "only one of '--prompt' and '--template' can be specified"),
    ],
)
def test_wrong_command_lines_are_errors(shell: Shell, arguments: list[str], sentence: str) -> None:
    assert shell.run("show", *arguments) == Outcome(1, "", f"Error: {sentence}\n")


def test_a_server_that_cannot_show_prompts_is_named(tmp_path: Path) -> None:
    with FakeServer({}) as other:
        refused = Shell(tmp_path, other.host).run("show", "m", "--prompt")
    sentence = f'the server at "http://{other.host}" cannot show prompts: it is another program'
    assert refused == Outcome(1, "", f"Error: {sentence}\n")
