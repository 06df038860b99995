"""The page in Chromium over the fake engine, for each module that names this one in its `pytest_plugins`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.page_actions import CHROMIUM
from tests.tiny_models import tiny_llama

JINJA = (  # of no known family, so that the engine renders and parses
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if tools %}{{ tools }}{{ m.tool_calls }}{% endif %}"
)


@pytest.fixture(scope="module")
def corral(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[RunningServer]:
    """One server for all tests; each has a browser profile of its own, so none sees another's conversations."""
    home = tmp_path_factory.mktemp("page")
    for name in ("fake", "other"):
        add_model(home / ".ollama" / "models", name, tiny_gguf)
    jinja = tiny_llama(home / "jinja.gguf", seed=1, chat_template=JINJA)
    add_model(home / ".ollama" / "models", "turns", jinja)
    with running_server(home, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser, corral: RunningServer) -> Iterator[Page]:
    """A new window on the page. Errors in it fail the test, and so does anything that its policy refused."""
    (corral.home / "go").unlink(missing_ok=True)
    context = browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800}, accept_downloads=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.goto(corral.url)
    yield page
    context.close()
    assert errors == []
