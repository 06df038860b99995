"""The packages of other projects' clients: each kit a folder, installed by its language's own package manager.

python -m tests.kits    # installs all of them, before the tests ask for them or beside them

A kit that is being installed is waited for. One whose installation failed is tried again by the next who needs it.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
KITS = ROOT / ".cache" / "clients"
PROGRAMS = ROOT / "tests" / "clients"


@dataclass(frozen=True)
class Kit:
    """What is installed, and how: `install` gets the empty folder and the text of `requirements`."""

    name: str
    requirements: Callable[[], str]
    install: Callable[[Path, str], None]

    def folder(self) -> Path:
        """The folder with the packages, which are installed when they are not there or others are required now."""
        KITS.mkdir(parents=True, exist_ok=True)
        with open(KITS / f"{self.name}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            requirements = self.requirements()
            folder = KITS / f"{self.name}-{hashlib.sha256(requirements.encode()).hexdigest()[:12]}"
            finished = folder / "installed"
            if not finished.exists():
                for old in KITS.glob(f"{self.name}-{'[0-9a-f]' * 12}"):
                    shutil.rmtree(old)
                folder.mkdir()
                self.install(folder, requirements)
                finished.touch()
        return folder


def _extra(name: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return "\n".join(project["optional-dependencies"][name])


def _file(path: str) -> Callable[[], str]:
    return (PROGRAMS / path).read_text


def _install_python(folder: Path, requirements: str) -> None:
    (folder / "requirements.txt").write_text(requirements)
    venv.create(folder, symlinks=True, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-compile", "--requirement", str(folder / "requirements.txt")], check=True)


def _install_node(folder: Path, requirements: str) -> None:
    (folder / "package.json").write_text(requirements)
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(["npm", "install", *quiet], cwd=folder, check=True, stdout=sys.stderr)


def _install_java(folder: Path, requirements: str) -> None:
    (folder / "pom.xml").write_text(requirements)
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={folder / 'packages'}"]
    subprocess.run(["mvn", "--batch-mode", "--quiet", *copy], cwd=folder, check=True, stdout=sys.stderr)


PYTHON = Kit("clients", lambda: _extra("clients"), _install_python)
INSTRUCTOR = Kit("instructor", lambda: _extra("clients-instructor"), _install_python)
NODE = Kit("node", _file("node/package.json"), _install_node)
AGENTS = Kit("agents", _file("agents/package.json"), _install_node)
BROWSER = Kit("browser", _file("browser/package.json"), _install_node)
JAVA = Kit("java", _file("java/pom.xml"), _install_java)
ALL = (BROWSER, AGENTS, PYTHON, NODE, INSTRUCTOR, JAVA)
"""In the order in which the tests come to need them."""


if __name__ == "__main__":
    for kit in ALL:
        kit.folder()
