"""Pages that are made from the code are what the code makes, and what the pages promise is there."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from corral.config import Config

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "README.zh.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *map(str, (ROOT / "docs").rglob("*.md")),
]


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


SPEC = ROOT / "docs" / "spec"
_SECTION = r"(?:§\d+(?:\.\d+)?(?:[-–]§?\d+(?:\.\d+)?)?|annex [A-Z](?:\.\d+)?(?:[-–][A-Z]\.\d+)?)"
REFERENCE = re.compile(rf"\b(api|cli) ({_SECTION}(?:(?:, | and ){_SECTION})*)")


def sections(page: str) -> set[str]:
    """The numbers of a page's headings and worked examples: `7`, `7.1`, `A`, `A.1`."""
    text = (SPEC / f"{page}.md").read_text("utf-8")
    return set(re.findall(r"^(?:#+ (?:Annex )?|(?=[A-Z]\.\d))([A-Z0-9]+(?:\.\d+)?)\b", text, re.MULTILINE))


def references(file: Path) -> set[tuple[str, str]]:
    """Page and section of every "spec api §7.2" in a file, which may be broken over two lines."""
    text = re.sub(r"\s+(?:# )?", " ", file.read_text("utf-8"))
    found = REFERENCE.findall(text)
    return {
        (page, section) for page, listed in found for section in re.findall(r"\d+(?:\.\d+)?|[A-Z](?:\.\d+)?", listed)
    }


def test_every_reference_to_the_specification_leads_to_a_section() -> None:
    known = {page: sections(page) for page in ("api", "cli")}
    assert {"1", "7.2", "21", "A", "A.1", "B"} <= known["api"]
    files = [
        file for folder in ("corral", "tests", "docs", "benchmarks") for file in (ROOT / folder).rglob("*.[pm][yd]")
    ]
    found = {(page, section): file for file in files for page, section in references(file)}
    assert len(found) > 60
    assert {key: str(file) for key, file in found.items() if key[1] not in known[key[0]]} == {}
