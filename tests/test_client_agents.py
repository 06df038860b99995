"""Coding agents mend a file: Codex through OpenAI's responses, Claude Code through Anthropic's messages.

No model that is small enough for a test can work as an agent, so what one would say is given: first a call of the tool
by which the agent runs commands, then, after its result, that it is done. Codex has a model of the real engine whose
weights say that; Claude Code, whose prompt is twice as long, the fake engine.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.client_kits import agents
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.speakers import speaker
from tests.tiny_models import tiny_llama
from tests.tool_templates import JINJA

LONG = 65536
"""Tokens of context: an agent begins with 40 to 80 kB of instructions and tools."""

MEND = "sed -i 's/a - b/a + b/' sums.py"
DONE = "It adds now."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with a fault in its one file."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "sums.py").write_text("def add(a, b):\n    return a - b\n")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
        subprocess.run(["git", *who, *command], cwd=folder, check=True)
    return folder


def run(project: Path, *command: str, **variables: str) -> str:
    """What an agent prints that works on a project; its home is the folder around it."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(project.parent), **variables}
    done = subprocess.run(
        command,
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_mended(project: Path) -> bool:
    return (project / "sums.py").read_text() == "def add(a, b):\n    return a + b\n"


def answered_twice(server: RunningServer, route: str) -> bool:
    """Whether two requests came to a route and went well."""
    log = server.log.read_text()
    assert "Traceback" not in log
    lines = [line for line in log.splitlines() if f"| POST {route}" in line]
    return ['msg="200 |' in line for line in lines] == [True, True]


CALL = json.dumps({"name": "exec_command", "arguments": {"cmd": MEND}})
ANSWERS = ("<tool_call>", f"\n{CALL}\n", "</tool_call>", "<|im_end|>", "<|called|>", DONE)
AFTER_CALLS = '{% if messages[-1].role == "tool" %}<|called|>{% endif %}'
"""Ends the prompt where a tool's result is the last message, and so leads the model to its second answer."""


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server over the real engine, whose model says what Codex needs."""
    work = tmp_path_factory.mktemp("client-codex")
    model = speaker(
        work / "agent.gguf",
        *ANSWERS,
        chat_template=JINJA + AFTER_CALLS,
        special={"<|im_end|>": "control"},
        context_length=LONG,
    )
    add_model(work / "home" / ".ollama" / "models", "agent", model)
    with running_server(work / "home", OLLAMA_CONTEXT_LENGTH=str(LONG)) as server:
        yield server


def test_codex(speaking: RunningServer, project: Path, tmp_path: Path) -> None:
    # It compares names letter by letter with those of the list, and pulls what it does not find there.
    model = ["--oss", "--local-provider", "ollama", "--model", "agent:latest"]
    quiet = ["--config", "analytics.enabled=false", "--config", "check_for_update_on_startup=false"]
    free = ["--dangerously-bypass-approvals-and-sandbox"]  # the commands are those of this file
    command = [str(agents() / ".bin" / "codex"), "exec", "--json", *model, *quiet, *free, "add() must add. Mend it."]
    (tmp_path / "codex").mkdir()
    printed = run(project, *command, CODEX_HOME=str(tmp_path / "codex"), CODEX_OSS_BASE_URL=f"{speaking.url}/v1")
    events = map(json.loads, printed.splitlines())
    notice, call, answer = [event["item"] for event in events if event["type"] == "item.completed"]
    assert (notice["type"], "Model metadata" in notice["message"]) == ("error", True)  # it knows its own models only
    assert (call["type"], call["exit_code"]) == ("command_execution", 0)
    assert (answer["type"], answer["text"]) == ("agent_message", DONE)
    assert is_mended(project)
    assert answered_twice(speaking, "/v1/responses")
    assert "prompt cut" not in speaking.log.read_text()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server over the fake engine, which says what the last words in a prompt ask for."""
    work = tmp_path_factory.mktemp("client-claude")
    model = tiny_llama(work / "tiny.gguf", chat_template=JINJA, context_length=LONG)
    add_model(work / "home" / ".ollama" / "models", "tiny", model)
    with running_server(work / "home", CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_CONTEXT_LENGTH=str(LONG)) as server:
        yield server


def test_claude_code(scripted: RunningServer, project: Path) -> None:
    then = f"!say={quote(DONE)} !call="  # printed by the command, and so the last words of the second prompt
    arguments = {"command": f"{MEND}; echo '{then}'", "description": "Mend"}
    asked = f"add() must add. !say= !call=Bash !arguments={quote(json.dumps(arguments))}"
    program = ["node", str(agents() / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs")]
    printed = run(
        project,
        *program,
        *("--print", asked, "--output-format", "json", "--allowedTools", "Bash", "--max-turns", "3"),
        ANTHROPIC_BASE_URL=scripted.url,
        ANTHROPIC_API_KEY="corral",
        ANTHROPIC_MODEL="tiny",
        ANTHROPIC_SMALL_FAST_MODEL="tiny",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_AUTOUPDATER="1",
    )
    answer = json.loads(printed)
    assert (answer["is_error"], answer["num_turns"], answer["result"]) == (False, 2, DONE)
    assert is_mended(project)
    assert answered_twice(scripted, "/v1/messages")
    # The first block of its instructions changes with every request, and is left out. So the second prompt finds all of
    # the first one in the cache.
    usage = answer["usage"]
    assert usage["cache_read_input_tokens"] > 0.9 * usage["input_tokens"] > 1000
