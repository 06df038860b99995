"""Other projects' clients, installed apart from the product (`tests/kits.py`), and small programs that use them
(`tests/clients`) against a real server.

A program is a module of scenarios. It prints a line of JSON for each: its name, and what it returned or how it failed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import kits
from tests.asking import post
from tests.conftest import RunningServer, add_model, running_server
from tests.kits import PROGRAMS, Kit
from tests.speakers import speaker
from tests.tiny_models import tiny_bert, tiny_llama, tiny_ultravox
from tests.tool_templates import GO, JINJA

CALL = ("<tool_call>", '\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 1}}\n', "</tool_call>")
LONGEST = 300
"""Seconds that a program may take."""


class Results:
    """What the scenarios of one program came to."""

    def __init__(self, program: str, output: str, errors: str) -> None:
        self._program = program
        self._errors = errors
        self._found = {line["name"]: line for line in map(json.loads, output.splitlines())}

    def __getitem__(self, scenario: str) -> Any:
        """What a scenario returned; one that failed, or that was not run, fails the test."""
        assert scenario in self._found, f"{self._program} did not run {scenario}: {self._errors}"
        found = self._found[scenario]
        assert "error" not in found, f"{self._program}, {scenario}: {found['error']}"
        return found["result"]


@contextmanager
def clients_server(work: Path, starter: Path) -> Iterator[RunningServer]:
    """A server over the real engine: `chatter` is the starter model, always with the same answers and with a template
    that knows tools, rendered here; `native` is tiny, and the engine renders it; `caller` calls a tool whatever it is
    asked; `hears` hears; `bert` embeds."""
    models = work / "home" / ".ollama" / "models"
    add_model(models, "smollm2", starter)
    add_model(models, "native", tiny_llama(work / "native.gguf", chat_template=JINJA))
    add_model(models, "caller", speaker(work / "caller.gguf", *CALL, chat_template=JINJA))
    tiny_ultravox(work / "hears.gguf", work / "projector.gguf", chat_template=JINJA)
    add_model(models, "hears", work / "hears.gguf", work / "projector.gguf")
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    with running_server(work / "home", OLLAMA_CONTEXT_LENGTH="1024", OLLAMA_MAX_LOADED_MODELS="9") as server:
        chatter = {"model": "chatter", "from": "smollm2", "template": GO, "parameters": {"temperature": 0}}
        made = post(server, "/api/create", {**chatter, "stream": False})
        assert made.status == 200, made.body
        yield server


def run_python(server: RunningServer, program: str, *, written_for: str = "sync", kit: Kit = kits.PYTHON) -> Results:
    """A program of Python with the packages of a kit; `written_for` "async" runs one for an
    asynchronous client as it stands, "sync" without its `async` and `await`."""
    python = kit.folder() / "bin" / "python"
    command = [str(python), str(PROGRAMS / "python" / "run.py"), program, written_for]
    return _run(f"{program}, {written_for}", command, PROGRAMS / "python", server)


def run_node(server: RunningServer, program: str) -> Results:
    """A program of Node.js."""
    kit = kits.NODE.folder()
    for file in (PROGRAMS / "node").glob("*.mjs"):
        shutil.copy(file, kit)  # a module finds packages beside itself only
    return _run(program, ["node", str(kit / "run.mjs"), program], kit, server)


def agents() -> Path:
    """The folder of the packages of coding agents."""
    return kits.AGENTS.folder() / "node_modules"


def run_java(server: RunningServer, program: str) -> Results:
    """A program of Java, which is compiled as it is started."""
    kit = kits.JAVA.folder()
    return _run(program, ["java", "-cp", str(kit / "packages" / "*"), program], PROGRAMS / "java", server)


def is_weather_call(name: str, arguments: dict[str, Any]) -> bool:
    """Whether a call is what the schema of the programs' tool permits."""
    return name == "get_weather" and arguments["city"] in ("Oslo", "Rome") and arguments["days"] in (1, 2)


def is_weather(value: dict[str, Any]) -> bool:
    """Whether an answer is what the programs' schema of an answer permits."""
    return value.keys() == {"sky", "degrees"} and value["sky"] in ("clear", "grey") and value["degrees"] in (3, 20)


def _run(name: str, command: list[str], folder: Path, server: RunningServer) -> Results:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(server.home),
        "URL": server.url,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr[-3000:]}"
    return Results(name, done.stdout, done.stderr[-3000:])
