"""Pages that are made from the code are what the code makes, and what the pages promise is there."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from corral.config import Config

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *map(str, (ROOT / "docs").rglob("*.md"))]


def test_the_reference_is_what_the_code_makes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "reference"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\((?!https?://)([^)#]+)", file.read_text("utf-8"))
    assert [link for link in links if not (file.parent / link).exists()] == []


def test_every_setting_says_what_it_is_for() -> None:
    assert [setting.name for setting in fields(Config) if len(setting.metadata["sentence"].split()) < 4] == []


def test_every_module_stands_in_the_map() -> None:
    map_ = (ROOT / "docs" / "design.md").read_text("utf-8")
    modules = {path.stem if path.suffix else path.name for path in (ROOT / "corral").iterdir()}
    missing = {name for name in modules if not name.startswith(("_", "py")) and name not in map_}
    assert missing == set()
