"""What a command may import: start-up time is part of the contract, and a heavy module gets in unnoticed."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.fake_server import FakeServer, command_environment, reply

HEAVY = {
    "aiohttp",
    "asyncio",
    "concurrent",
    "cryptography",
    "markdown_it",
    "multiprocessing",
    "numpy",
    "prometheus_client",
    "prompt_toolkit",
    "psutil",
    "PIL",
    "pygments",
    "rich",
    "starlette",
    "uvicorn",
    "wcwidth",
    "xllamacpp",
}
ROOT = Path(__file__).parent.parent
WITH_UVICORN = {"httptools", "uvloop"}
"""What `uvicorn[standard]` brings along and the server asks for by name."""
PROGRAM = {"corral", "corral.cli", "corral.cli.program", "corral.errors"}
CONFIG = {
    "corral.config",
    "corral.config.address",
    "corral.config.environment",
    "corral.config.reading",
    "corral.config.settings",
    "corral.config.values",
    "corral.golang",
    "corral.golang.durations",
}
FRAMEWORK = {f"corral.cli.framework{module}" for module in ("", ".commands", ".flags", ".help_pages")}
CLIENT = {"corral.client", "corral.client.answers", "corral.client.requests", "corral.access", "corral.access.own_key"}
CLIENT |= {"corral.system", "corral.system.current"}
TABLES = {f"corral.cli.display{module}" for module in ("", ".tables", ".text", ".units")}


def loaded_by(home: Path, host: str, *arguments: str) -> set[str]:
    """The modules that a command has loaded when it is done."""
    code = (
        "import sys; from corral.cli import program; status = program.run(['corral', *sys.argv[1:]]); "
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr); sys.exit(status)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=command_environment(home, host),
        check=True,
    )
    return set(finished.stderr.splitlines())


def packages(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] == "corral"}


def test_version_loads_neither_click_nor_any_codec_of_the_middle(tmp_path: Path) -> None:
    with FakeServer({"GET /api/version": reply({"version": "0.33.0"})}) as server:
        modules = loaded_by(tmp_path, server.host, "--version")
    assert not packages(modules) & (HEAVY | {"click", "msgspec"})
    assert ours(modules) == PROGRAM | CONFIG | CLIENT | {"corral.cli.commands", "corral.cli.commands.version"}


@pytest.mark.parametrize("command", ["list", "ps"])
def test_tables_load_what_they_show_and_no_more(tmp_path: Path, command: str) -> None:
    model = {"name": "m:latest", "modified_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"}
    with FakeServer({f"GET /api/{route}": reply({"models": [model]}) for route in ("tags", "ps")}) as server:
        modules = loaded_by(tmp_path, server.host, command)
    assert not packages(modules) & (HEAVY | {"msgspec", "subprocess", "tomllib"})
    ours_for_it = {
        "corral.cli.connection",
        "corral.cli.display.terminal",
        "corral.cli.commands",
        "corral.cli.commands.listing",
        "corral.golang.units",
    }
    assert ours(modules) == PROGRAM | CONFIG | FRAMEWORK | CLIENT | TABLES | ours_for_it


def test_help_loads_no_client(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "127.0.0.1:1", "--help")
    assert not packages(modules) & (HEAVY | {"msgspec", "http", "json", "subprocess"})
    assert ours(modules) == PROGRAM | CONFIG | FRAMEWORK


COMPLETION = {
    "corral.cli.commands",
    "corral.cli.commands.completion",
    "corral.cli.completion",
    "corral.cli.completion.candidates",
    "corral.cli.completion.models",
}


def test_completing_a_command_loads_no_client(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "127.0.0.1:1", "__complete", "--", "sh")
    assert not packages(modules) & (HEAVY | {"msgspec", "http", "json", "subprocess"})
    assert ours(modules) == PROGRAM | CONFIG | FRAMEWORK | COMPLETION


def test_completing_a_model_loads_the_command_and_a_client(tmp_path: Path) -> None:
    with FakeServer({"GET /api/tags": reply({"models": []})}) as server:
        modules = loaded_by(tmp_path, server.host, "__complete", "--", "rm", "")
    assert not packages(modules) & (HEAVY | {"msgspec", "subprocess", "tomllib"})
    needed = {"corral.cli.connection", "corral.cli.commands.models", "corral.golang.units"}
    assert ours(modules) == PROGRAM | CONFIG | FRAMEWORK | COMPLETION | CLIENT | needed


@pytest.mark.parametrize("command", [["show", "m"], ["stop", "m"], ["cp", "a", "b"], ["rm", "m"], ["pull", "m"]])
def test_no_client_command_loads_the_server_or_a_terminal_library(tmp_path: Path, command: list[str]) -> None:
    done = reply({"status": "success", "done": True})
    routes = {f"POST /api/{route}": done for route in ("show", "generate", "copy", "pull")}
    with FakeServer({**routes, "DELETE /api/delete": reply("")}) as server:
        modules = loaded_by(tmp_path, server.host, *command)
    assert not packages(modules) & HEAVY
    assert not {module for module in modules if module.startswith("corral.server")}


def test_an_answer_into_a_pipe_loads_no_terminal_library(tmp_path: Path) -> None:
    done = reply({"response": "Hi", "done": True})
    with FakeServer({"POST /api/show": reply({}), "POST /api/generate": done}) as server:
        modules = loaded_by(tmp_path, server.host, "run", "m", "Hi")
    assert not packages(modules) & HEAVY


def test_the_server_loads_nothing_of_what_converts_and_quantises() -> None:
    """Child processes do: it would take time at every start, and memory for as long as the server runs."""
    code = "import sys, corral.server.serve; print(*{'numpy', 'gguf', 'libgguf', 'xllamacpp'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_server_loads_nothing_of_ray_and_of_nodes_unless_it_has_some() -> None:
    loaded = "(name for name in sys.modules if name.startswith(('ray', 'corral.cluster')))"
    code = f"import sys, corral.server.serve; print(*{loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["ray"]]
    declared = {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted}
    distributions = packages_distributions()
    imported = {
        normal(distribution)
        for file in (ROOT / "corral").rglob("*.py")
        for package in imported_by(file) - sys.stdlib_module_names - {"corral"}
        for distribution in distributions[package]
    }
    assert imported - WITH_UVICORN == declared


def imported_by(file: Path) -> set[str]:
    """The top-level packages that a module imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return packages(names)


def normal(distribution: str) -> str:
    """Its name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
