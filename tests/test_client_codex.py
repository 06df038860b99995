"""Codex, OpenAI's coding agent, mends a file with a model of the real engine.

No model that is small enough for a test can work as an agent, so the one here has weights that say what one would:
first a call of the tool by which Codex runs commands, then, after its result, that it is done.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client_kits import codex
from tests.conftest import RunningServer, add_model, running_server
from tests.speakers import speaker
from tests.tool_templates import JINJA

LONG = 65536
"""Tokens of context: Codex begins with 40 kB of instructions and tools, and the model's tokens are short."""

MEND = {"name": "exec_command", "arguments": {"cmd": "sed -i 's/a - b/a + b/' sums.py"}}
ANSWERS = ("<tool_call>", f"\n{json.dumps(MEND)}\n", "</tool_call>", "<|im_end|>", "<|called|>", "It adds now.")
AFTER_CALLS = '{% if messages[-1].role == "tool" %}<|called|>{% endif %}'
"""Ends the prompt where a tool's result is the last message, and so leads the model to its second answer."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("client-codex")
    agent = speaker(
        work / "agent.gguf",
        *ANSWERS,
        chat_template=JINJA + AFTER_CALLS,
        special={"<|im_end|>": "control"},
        context_length=LONG,
    )
    add_model(work / "home" / ".ollama" / "models", "agent", agent)
    with running_server(work / "home", OLLAMA_CONTEXT_LENGTH=str(LONG)) as server:
        yield server


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


def test_codex_mends_a_file(server: RunningServer, project: Path, tmp_path: Path) -> None:
    # It compares names letter by letter with those of the list, and pulls what it does not find there.
    model = ["--oss", "--local-provider", "ollama", "--model", "agent:latest"]
    quiet = ["--config", "analytics.enabled=false", "--config", "check_for_update_on_startup=false"]
    free = ["--dangerously-bypass-approvals-and-sandbox"]  # the commands are those of this file
    (tmp_path / "codex").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CODEX_HOME": str(tmp_path / "codex"),
        "CODEX_OSS_BASE_URL": f"{server.url}/v1",
    }
    done = subprocess.run(
        [str(codex()), "exec", "--json", *model, *quiet, *free, "add() must add. Mend it."],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    items = [event["item"] for event in map(json.loads, done.stdout.splitlines()) if event["type"] == "item.completed"]
    notice, call, answer = items
    assert (notice["type"], "Model metadata" in notice["message"]) == ("error", True)  # it knows its own models only
    assert (call["type"], call["exit_code"]) == ("command_execution", 0)
    assert (answer["type"], answer["text"]) == ("agent_message", "It adds now.")
    assert (project / "sums.py").read_text() == "def add(a, b):\n    return a + b\n"
    log = server.log.read_text()
    assert log.count("| POST /v1/responses") == 2
    assert "prompt cut" not in log
    assert "Traceback" not in log
