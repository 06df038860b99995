"""A conversation at the prompt with the real server and engine: saved, loaded, and gone on with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.asking import post
from tests.commands import CORRAL, Shell
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_llama
from tests.tmux import Tmux
from tests.tool_templates import JINJA

HINT = ">>> Send a message (/? for help)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("talks")
    with running_server(home) as server:
        add_model(server.models, "tiny", tiny_llama(home / "tiny.gguf", chat_template=JINJA))
        yield server


@pytest.mark.parametrize("columns", [40, 80])
def test_a_conversation_is_saved_and_gone_on_with(server: RunningServer, tmp_path: Path, columns: int) -> None:
    environment = Shell(tmp_path, server.host).environment()
    name = f"mine{columns}"
    with Tmux([str(CORRAL), "run", "tiny"], environment, columns=columns) as window:
        window.wait_for(HINT)
        for line, answer in (
            ("/set system 你是海盗", "Set system message."),
            ("/set parameter num_predict 4", "Set parameter 'num_predict' to '4'"),
            ("天空为什么是蓝色的？", ""),
            (f"/save {name}", f"Created new model '{name}'"),
            (f"/load {name}", ">>> 天空为什么是蓝色的？"),
            ("/show system", "你是海盗"),
            ("还有呢？", ""),
        ):
            window.press("C-l")
            window.wait_until(lambda screen: screen == HINT, "a clear screen")
            window.write(line)
            window.press("Enter")
            assert f">>> {line}\n" in window.wait_for_end(f"\n{HINT}")
            assert answer in window.screen
        window.write("/bye")
        window.press("Enter")
        window.wait_for_end("ended with 0")
    shown = post(server, "/api/show", {"model": name}).json
    assert shown["system"] == "你是海盗"
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
    assert shown["messages"][0]["content"] == "天空为什么是蓝色的？"
    assert "num_predict                    4" in shown["parameters"]
