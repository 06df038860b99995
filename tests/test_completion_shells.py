"""Tab in real shells, each prepared by `completion --install`."""

from pathlib import Path

import pytest

from tests.commands import CORRAL, Outcome, Shell, Terminal
from tests.fake_server import FakeServer, lines, reply

MODELS = {
    "models": [
        {"name": name, "size": 98_000_000, "modified_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"}
        for name in ("smollm2:135m", "brief:latest", "me/other:1b")
    ]
}
DONE = lines({"status": "success", "done": True})
ROUTES = {
    "GET /api/tags": reply(MODELS),
    "GET /api/ps": reply(MODELS),
    "GET /api/version": reply({"version": "0.33.0"}),
    "POST /api/show": reply({}),
    "POST /api/copy": reply(""),
    "POST /api/create": DONE,
    "POST /api/generate": DONE,
    "POST /api/push": DONE,
}

SHELLS = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}
PROMPTS = {"bash": "PS1='ready> '\n", "zsh": "PS1='ready> '\n", "fish": "function fish_prompt; echo 'ready> '; end\n"}


def typed_into(shell: str, home: Path, host: str, *command_lines: str) -> Outcome:
    """What became of a shell in which both programs have completion, after these lines were typed there."""
    programs = home / "bin"
    programs.mkdir()
    for name in ("corral", "ollama"):
        (programs / name).symlink_to(CORRAL)
    place = Shell(home, host)
    variables = place.terminal_environment()
    variables["PATH"] = f"{programs}:{variables['PATH']}"
    file = home / SHELLS[shell]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROMPTS[shell])
    for name in ("corral", "ollama"):
        for said in ("new shells complete", "has it already"):
            installed = Shell(home, host, name).run("completion", shell, "--install")
            assert (installed.status, said in installed.stdout) == (0, True)
    # A fish without this folder reads all manual pages of the machine in the background.
    (home / ".local" / "share" / "fish" / "generated_completions").mkdir(parents=True)
    terminal = Terminal([shell, "-i"], variables, 80, whole=True, folder=home)
    terminal.wait_for("ready>")
    for command_line in (*command_lines, "exit"):
        terminal.type(f"{command_line}\r")
    return terminal.finish()


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_what_is_typed(shell: str, tmp_path: Path) -> None:
    (tmp_path / "brief.modelfile").write_text("FROM smollm2\n")
    with FakeServer(ROUTES) as server:
        shown = typed_into(
            shell,
            tmp_path,
            server.host,
            "corral sho\tsmollm2:1\t",
            'ollama cp "bri\t copy',
            "corral sto\tme\t",
            "ollama create mine --quant\tq8\t -f brief.mo\t",
            "corral run smol\t --think=hi\t Hi",
            "corral pus\tbrief --ins\t",
        )
        asked = [(route, body) for route, body in server.requests() if route.startswith("POST")]
    unload = {"prompt": "", "system": "", "options": {}, "keep_alive": 0}
    assert asked == [
        ("POST /api/show", {"model": "smollm2:135m", "verbose": False, "requirements": True}),
        ("POST /api/copy", {"source": "brief", "destination": "copy"}),
        ("POST /api/show", {"model": "me/other:1b", "verbose": False}),
        ("POST /api/generate", {"model": "me/other:1b", **unload}),
        ("POST /api/create", {"from": "smollm2", "quantize": "q8_0", "model": "mine"}),
        ("POST /api/show", {"model": "smollm2:135m", "verbose": False}),
        (
            "POST /api/generate",
            {"model": "smollm2:135m", "prompt": "Hi", "system": "", "options": {}, "think": "high", "progress": True},
        ),
        ("POST /api/push", {"model": "brief", "insecure": True}),
    ], shown.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_without_a_server_changes_nothing_and_starts_none(shell: str, tmp_path: Path) -> None:
    shown = typed_into(shell, tmp_path, "127.0.0.1:1", "echo corral; corral show smol\t --modelfile --system")
    assert "only one of '--license'" in shown.stdout
    assert not (tmp_path / "state").exists()
