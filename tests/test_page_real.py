"""The page in the browser with the real engine: a conversation from its first word to its deletion."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import RunningServer, add_model, running_server
from tests.page_actions import say

pytest_plugins = ["tests.page_fixtures"]


@pytest.fixture(scope="module")
def corral(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two names of the real 135M model."""
    home = tmp_path_factory.mktemp("page-real")
    for name in ("smollm2:135m", "twin"):
        add_model(home / ".ollama" / "models", name, starter_gguf)
    with running_server(home) as server:
        yield server


def longer_than(characters: int) -> re.Pattern[str]:
    return re.compile(f".{{{characters},}}.", re.DOTALL)


def test_a_real_conversation(page: Page) -> None:
    page.get_by_label("Model", exact=True).select_option("smollm2:135m")
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("num_predict").fill("1000")
    page.get_by_label("repeat_penalty").fill("1.3")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    say(page, "Write a long story about a fox and a crow.")
    last = page.locator("article.assistant").last
    stop = page.get_by_role("button", name="Stop")
    expect(last.locator(".text")).to_have_text(longer_than(40), timeout=60000)
    page.reload()
    expect(last.locator(".text")).to_contain_text(" ")
    begun = len(last.locator(".text").inner_text())
    expect(last.locator(".text")).to_have_text(longer_than(begun))
    stop.click()
    expect(last.locator(".state")).to_have_text("Stopped.")

    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("num_predict").fill("8")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    page.get_by_label("Model", exact=True).select_option("twin:latest")
    last.get_by_role("button", name="Answer again").click()
    expect(last.locator("header")).to_contain_text("twin:latest2 / 2")
    expect(last.locator(".figures")).to_contain_text("8 tokens", timeout=60000)
    say(page, "And then?")
    expect(page.locator("article")).to_have_count(4)
    expect(last.locator(".figures")).to_contain_text("of them cached", timeout=60000)

    page.get_by_role("button", name="More").click()
    for _ in ("in the menu", "to the question"):
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("complementary")).to_contain_text("No conversations yet")
    page.get_by_role("link", name="Models").click()
    page.get_by_role("article", name="twin:latest").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("article")).to_have_count(1)
