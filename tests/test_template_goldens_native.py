"""Jinja templates of families with tools or thoughts, run by the engine, asked for through the server.

What Python's Jinja would not show is shown here: how the engine hands messages, calls, results, thoughts and tools to
a template. Each template is written here in its family's published format; the prompts under goldens/native were
checked by hand. Families that only write turns are compared in test_known_templates.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.messages import Message, Think, Tool
from tests.asking import post
from tests.conftest import RunningServer, add_model, running_server
from tests.test_template_goldens import CONVERSATIONS, TOOLS
from tests.tiny_models import tiny_llama

GOLDENS = Path(__file__).parent / "goldens" / "native"

FAMILIES = {
    "llama3.1": TOOLS,
    "mistral": TOOLS,
    "qwen2.5": (*TOOLS, "two-results"),
    "qwen3": (*TOOLS, "two-results", "no-thinking"),
    "gpt-oss": TOOLS,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        jinja = (GOLDENS / f"{family}.jinja").read_text()
        add_model(home / ".ollama" / "models", family, tiny_llama(home / f"{family}.gguf", chat_template=jinja))
    with running_server(home, OLLAMA_MAX_LOADED_MODELS="9") as server:
        yield server


def wire(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": message.text, "tool_name": message.tool_name}
    if message.role == "tool":
        written["tool_call_id"] = "call00001"
    if message.thinking:
        written["thinking"] = message.thinking
    if message.tool_calls:
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        written["tool_calls"] = [{"id": "call00001", "function": call} for call in calls]
    return written


def defined(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def rendered(server: RunningServer, model: str, messages: list[Message], tools: tuple[Tool, ...], think: Think) -> str:
    body = {
        "model": model,
        "messages": list(map(wire, messages)),
        "tools": list(map(defined, tools)),
        "think": think if "qwen3" in model else None,
        "_debug_render_only": True,
    }
    answer = post(server, "/api/chat", body)
    assert answer.status == 200, answer.body
    return str(answer.json["_debug_info"]["rendered_template"])


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in FAMILIES.items() for name in names])
def test_a_family_gets_what_its_format_says(server: RunningServer, family: str, name: str) -> None:
    prompt = rendered(server, family, *CONVERSATIONS[name])
    prompt = re.sub(r"(?<=Current date: )\d{4}-\d\d-\d\d", "2026-08-01", prompt)
    path = GOLDENS / family / f"{name}.txt"
    assert prompt == path.read_bytes().decode()


def test_every_golden_prompt_is_compared() -> None:
    found = {(path.parent.name, path.stem) for path in GOLDENS.glob("*/*.txt")}
    assert found == {(family, name) for family, names in FAMILIES.items() for name in names}
