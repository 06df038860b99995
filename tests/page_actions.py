"""What a person does on the page, for tests in Chromium."""

import shutil
from urllib.parse import quote

from playwright.sync_api import Page, expect

CHROMIUM = shutil.which("chromium") or "chromium"


def say(page: Page, text: str) -> None:
    """Types a message and sends it by Enter."""
    page.get_by_role("textbox", name="Write a message").fill(text)
    page.get_by_role("textbox", name="Write a message").press("Enter")


def answers(page: Page, text: str, timeout: float | None = None) -> None:
    """Waits for an answer that has this text, for so many milliseconds, and for its end."""
    expect(page.locator("article.assistant .text").last).to_have_text(text, timeout=timeout)
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def spoken(*pieces: str, times: int = 1) -> str:
    """What has the fake engine say a text, in these pieces, the last of them so many times."""
    return f"!times={times} !say={'|'.join(quote(piece, safe='') for piece in pieces)}"
