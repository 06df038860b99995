"""Whole screens of every command, and every help page, as they were recorded and read once: see `tests/screens.py`."""

import pytest

from tests.screens import FOLDER, PAGES, STEPS, pages, screens

NAMES = [
    step.name if columns == step.columns[0] else f"{step.name}.{columns}" for step in STEPS for columns in step.columns
]


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    return dict(screens())


@pytest.mark.parametrize("name", NAMES)
def test_the_screen_is_the_recorded_one(name: str, shown: dict[str, str]) -> None:
    assert shown[name] == (FOLDER / f"{name}.txt").read_text("utf-8")


def test_no_screen_shows_a_traceback_or_a_fault_of_ours(shown: dict[str, str]) -> None:
    assert [name for name, text in shown.items() if "Traceback" in text or "internal error" in text] == []


def test_every_screen_has_a_step_of_its_own() -> None:
    assert sorted(set(NAMES)) == sorted(NAMES) == sorted(file.stem for file in FOLDER.glob("*.txt"))


def test_the_help_pages_are_the_recorded_ones() -> None:
    recorded = {file.stem: file.read_text("utf-8") for file in PAGES.glob("*.txt")}
    assert dict(pages()) == recorded
