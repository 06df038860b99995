"""The page in the browser with a model that another server answers for, in a broad window and in a narrow one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.asking import ask, post, until
from tests.conftest import FAKE_ENGINE, RunningServer, add_model
from tests.fake_upstream import FakeUpstream, dead_url, fake_upstream, listing, whole
from tests.page_actions import answers, say
from tests.test_upstreams import front
from tests.test_upstreams_said import entry, shown

pytest_plugins = ["tests.page_fixtures"]

WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with fake_upstream() as server:
        server.lists = listing(entry("good"))
        server.shows["good"] = whole(shown(["completion", "tools", "vision", "thinking"]))
        yield server


@pytest.fixture(scope="module")
def corral(
    upstream: FakeUpstream, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A model of its own, one of another server, one of a server that is gone, and one that is here and there."""
    home = tmp_path_factory.mktemp("page-upstreams")
    for name in ("fake", "both"):
        add_model(home / ".ollama" / "models", name, tiny_gguf)
    models: dict[str, list[dict[str, Any]]] = {
        "far": [{"url": upstream.url, "model": "good"}],
        "gone": [{"url": dead_url()}],
        "both": [{"url": upstream.url, "model": "good"}],
        "later": [{"url": upstream.url, "model": "good"}],
    }
    with front(home, models, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        until(lambda: b"far:latest" in ask(server, "GET", "/api/ps").body)
        yield server


def no_scrolling_sideways(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_model_of_another_server_is_shown_as_one(page: Page, upstream: FakeUpstream, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{page.url.partition('#')[0]}#/models")
    far, own = page.get_by_role("article", name="far:latest"), page.get_by_role("article", name="fake:latest")
    expect(far).to_contain_text(f"Answered by {upstream.name}")
    expect(far).to_contain_text("8.2B · Q4_K_M · 40,960 tokens of context")
    expect(far.locator(".tag")).to_have_text(["text", "tools", "pictures", "thinking"])
    expect(far.get_by_role("button")).to_have_text(["Details"])
    expect(own.get_by_role("button")).to_have_count(4)
    both = page.get_by_role("article", name="both:latest")
    expect(both).to_contain_text(f"May also be answered by {upstream.name}")
    expect(both.get_by_role("button")).to_have_count(4)
    no_scrolling_sideways(page)
    far.get_by_role("button", name="Details").click()
    details = page.get_by_role("dialog")
    expect(details).to_contain_text(f"{upstream.url.removesuffix('/v1')} (good)")
    expect(details).to_contain_text("qwen3")
    no_scrolling_sideways(page)
    details.get_by_role("button", name="Done").click()
    page.get_by_role("article", name="gone:latest").get_by_role("button", name="Details").click()
    expect(page.get_by_role("dialog").locator(".error")).to_contain_text("cannot be reached: connection refused")
    expect(page.get_by_role("dialog")).not_to_contain_text("Architecture")


@pytest.mark.parametrize("width", WIDTHS)
def test_one_talks_with_it_and_sees_who_answered(page: Page, upstream: FakeUpstream, width: int) -> None:
    page.get_by_label("Model", exact=True).select_option("far:latest")
    say(page, "hello")
    answers(page, "One two three")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{page.url.partition('#')[0]}#/server")
    card = page.get_by_role("article", name="far:latest")
    expect(card).to_contain_text(upstream.name)
    expect(card).to_contain_text("40,960")
    expect(card.get_by_role("button")).to_have_count(0)
    table = page.get_by_role("region", name="Last requests")
    expect(table.get_by_role("columnheader", name="Sent to")).to_be_attached()
    expect(table.get_by_role("cell", name=upstream.name).first).to_have_attribute("title", "the only one")
    no_scrolling_sideways(page)


def test_before_the_first_word_one_reads_where_it_will_go(page: Page, upstream: FakeUpstream) -> None:
    hello, first = page.locator(".hello"), page.get_by_label("Model", exact=True)
    for name in ("far:latest", "both:latest"):
        first.select_option(name)
        expect(hello).to_have_text(f"Ask something. What you write may be sent to {upstream.name}.")
    first.select_option("fake:latest")
    expect(hello).to_have_text("Ask something. Nothing leaves this machine.")
    page.get_by_label("A second model that answers beside it").select_option("far:latest")
    expect(hello).to_contain_text(upstream.name)
    first.select_option("both:latest")
    page.reload()
    expect(hello).to_contain_text(upstream.name)


def test_a_model_that_has_come_here_can_be_unloaded(page: Page, corral: RunningServer) -> None:
    page.goto(f"{page.url.partition('#')[0]}#/server")
    card = page.get_by_role("article", name="later:latest")
    expect(card).to_contain_text("Answered by")
    assert post(corral, "/api/create", {"model": "later", "from": "fake", "stream": False}).status == 200
    said = [{"role": "user", "content": "Hi !tokens=1"}]
    answer = post(corral, "/api/chat", {"model": "later", "messages": said, "stream": False})
    assert answer.headers["x-corral-replica"] == "local"
    expect(card).to_contain_text("Slots in use")
    expect(card).not_to_contain_text("Answered by")
    card.get_by_role("button", name="Unload").click()
    expect(card).to_have_count(0)
