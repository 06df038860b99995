"""What a newcomer types: the commands of both READMEs and of docs/tutorial.md, as they stand, as a new user."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.commands import Shell, shell_without_server
from tests.conftest import ROOT, environment
from tests.packages import source_distribution, unpacked

FENCED = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n(?:\n(?=    ))*)+", re.MULTILINE)


def run(shell: Shell, folder: Path, program: Sequence[str | Path], code: str, programs: Path) -> str:
    """What a block of a page prints; only the address is changed to that of the test."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    variables = environment(shell.home, shell.host, {"PATH": path, "PIP_NO_COMPILE": "1"})
    code = code.replace("localhost:11434", shell.host)
    done = subprocess.run([*program, code], cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tour(tmp_path: Path) -> None:
    """Nothing is there at its beginning: the first command starts a server and fetches the model."""
    programs = Path(sys.executable).parent
    said = []
    with shell_without_server(tmp_path / "home") as shell:
        (folder := tmp_path / "work").mkdir()
        for language, code in FENCED.findall((ROOT / "docs" / "tutorial.md").read_text()):
            program = (sys.executable, "-c") if language == "python" else ("bash", "-euc")
            said.append(run(shell, folder, program, code, programs))
    assert all(said[:-1])
    assert re.search(r'"content":"\{.*\\"country\\":', said[-3])
    assert "3 vectors of 576 numbers" in said[-2]


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """In a new virtual environment, and the folder of a source distribution."""
    source = unpacked(source_distribution(tmp_path / "built"), tmp_path / "source")
    subprocess.run([sys.executable, "-m", "venv", source / ".venv"], check=True)
    blocks = code_blocks("README.md")
    with shell_without_server(tmp_path / "home") as shell:

        def typed(beginning: str, *program: str) -> str:
            (block,) = (block for block in blocks if block.startswith(beginning))
            return run(shell, source, program or ("bash", "-euc"), block, source / ".venv" / "bin")

        assert len(typed("pip install . &&").split()) > 3
        assert '"done":true' in typed("curl ")
        assert typed("import ollama", sys.executable, "-c")
        (source / "Modelfile").write_text(next(block for block in blocks if block.startswith("FROM ")))
        assert "success" in run(shell, source, ("bash", "-euc"), "corral create mine 2>&1", source / ".venv" / "bin")


def test_both_readmes_have_the_same_commands() -> None:
    assert code_blocks("README.md") == code_blocks("README.zh.md")


def code_blocks(page: str) -> list[str]:
    """Those that are set in, without what sets them in."""
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in INDENTED.findall((ROOT / page).read_text())]
