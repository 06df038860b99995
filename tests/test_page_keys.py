"""The page on a server that asks for keys, used as a person does: signing in, making a key, revoking it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.asking import ask
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.page_actions import CHROMIUM, answers, say


@pytest.fixture(scope="module")
def corral(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("page-keys")
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    with running_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), CORRAL_REQUIRE_KEY="1") as server:
        yield server


@pytest.fixture
def page(corral: RunningServer) -> Iterator[Page]:
    """A new window on the page; errors in it fail the test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(locale="en-GB").new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(corral.url)
        yield page
        browser.close()
        assert errors == []


def sign_in(page: Page, secret: str, *, stays: bool = True) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill(secret)
    dialog.get_by_label("Keep it in this browser").set_checked(stays)
    dialog.get_by_role("button", name="Use it").click()


def test_signing_in_making_a_key_and_revoking_it(page: Page, corral: RunningServer) -> None:
    first = (corral.home / ".ollama" / "corral-key").read_text().strip()
    expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
    sign_in(page, "corral-wrong")
    expect(page.get_by_text("does not know the key of this browser")).to_be_visible()
    sign_in(page, first, stays=False)
    say(page, "!tokens=3")
    answers(page, "w1 w2 w3")
    assert page.evaluate("[localStorage.getItem('corral.key'), sessionStorage.getItem('corral.key')]") == [None, first]

    page.get_by_role("link", name="Server").click()
    page.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("visitor")
    dialog.get_by_role("textbox", name="Models").fill("fake, qwen*")
    dialog.get_by_label("Requests a minute").fill("90")
    dialog.get_by_role("button", name="Make").click()
    secret = page.get_by_role("dialog").get_by_label("API key").input_value()
    page.get_by_role("button", name="Done").click()
    row = page.get_by_role("row").filter(has_text="visitor")
    expect(row).to_contain_text("fake, qwen*")
    expect(page.get_by_role("row").filter(has_text="first (yours)")).to_be_visible()
    assert ask(corral, "GET", "/api/tags", None, {"x-api-key": secret}).status == 200

    row.get_by_role("button", name="Revoke visitor").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    assert ask(corral, "GET", "/api/tags", None, {"x-api-key": secret}).status == 401


def test_the_routes_are_read_with_a_key_that_is_kept_nowhere(page: Page, corral: RunningServer) -> None:
    first = (corral.home / ".ollama" / "corral-key").read_text().strip()
    answered = page.goto(f"{corral.url}/docs")
    assert answered is not None
    assert answered.status == 401
    page.get_by_label("API key").fill("corral-wrong")
    page.get_by_role("button", name="Show the routes").click()
    expect(page.get_by_role("alert")).to_contain_text("this server wants an API key that it knows")
    page.get_by_label("API key").fill(first)
    page.get_by_label("API key").press("Enter")
    expect(page.locator("summary").filter(has_text="/api/chat").first).to_be_visible()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    with page.expect_download() as saved:
        page.get_by_role("link", name="openapi.json").click()
    assert "/api/chat" in json.loads(saved.value.path().read_text("utf-8"))["paths"]
    page.reload()
    expect(page.get_by_label("API key")).to_be_focused()
    assert ask(corral, "GET", "/docs").body.startswith(b"this server wants an API key that it knows: ")


def test_a_key_that_only_asks_models_sees_no_keys_and_may_be_declined(page: Page, corral: RunningServer) -> None:
    first = (corral.home / ".ollama" / "corral-key").read_text().strip()
    made = ask(corral, "POST", "/api/keys", {"name": "reader"}, {"x-api-key": first}).json
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("this server wants an API key that it knows").first).to_be_visible()
    page.get_by_role("link", name="Server").click()  # where it is asked for again
    sign_in(page, made["secret"])
    expect(page.get_by_text('this needs a key of the scope "admin", and yours has "infer"').first).to_be_visible()
    expect(page.get_by_text("compatible with Ollama")).to_be_visible()
    expect(page.get_by_role("heading", name="Keys")).to_be_hidden()
    page.reload()
    expect(page.get_by_text("compatible with Ollama")).to_be_visible()
