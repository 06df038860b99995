"""The wheel and the source distribution: what is in them, and what they say of themselves."""

import email
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import corral
from tests.conftest import ROOT
from tests.packages import source_distribution, unpacked, wheel

VERSION = corral.__version__


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("packages")
    archive = source_distribution(folder)
    return archive, wheel(unpacked(archive, folder / "source"), folder / "wheel")


def files_of_the_package() -> set[str]:
    files = (path for path in (ROOT / "corral").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    about = {f"corral-{VERSION}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    about |= {f"corral-{VERSION}.dist-info/{name}" for name in ("top_level.txt", "licenses/LICENSE")}
    assert names == files_of_the_package() | about
    assert {"corral/py.typed", "corral/server/page/static/index.html", "corral/cli/completion/fish.fish"} <= names


def test_the_source_distribution_holds_what_the_wheel_is_made_of_and_no_tests(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert files_of_the_package() | {"README.md", "LICENSE", "pyproject.toml", "MANIFEST.in", "PKG-INFO"} <= names
    rest = names - files_of_the_package() - {"README.md", "LICENSE", "pyproject.toml", "MANIFEST.in", "PKG-INFO"}
    assert {name for name in rest if not name.startswith("corral.egg-info/")} == {"setup.cfg"}


def test_they_say_what_they_are(built: tuple[Path, Path]) -> None:
    archive, wheel_file = built
    assert (archive.name, wheel_file.name) == (f"corral-{VERSION}.tar.gz", f"corral-{VERSION}-py3-none-any.whl")
    with zipfile.ZipFile(wheel_file) as opened:
        metadata: Message = email.message_from_bytes(opened.read(f"corral-{VERSION}.dist-info/METADATA"))
        programs = opened.read(f"corral-{VERSION}.dist-info/entry_points.txt").decode()
    said = {name: metadata[name] for name in ("Name", "Version", "Requires-Python", "License-Expression")}
    assert said == {"Name": "corral", "Version": VERSION, "Requires-Python": ">=3.11", "License-Expression": "MIT"}
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert text.decode() == (ROOT / "README.md").read_text()
    assert programs == "[console_scripts]\ncorral = corral.__main__:main\n"


def test_an_index_would_take_them(built: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr
