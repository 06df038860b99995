"""The page in the browser with what a model, a file or another's export may bring: endless tables, characters that
reorder text, and a million characters without a space.
"""

import json
import re

from playwright.sync_api import FilePayload, Page, expect

from tests.conftest import RunningServer
from tests.page_actions import answers, say, spoken

pytest_plugins = ["tests.page_fixtures"]

HEBREW = "\u05e9\u05dc\u05d5\u05dd"
REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
MILLION = 1_000_000
HAS_ITS_WIDTH = """() => [document.documentElement, ...document.querySelectorAll(".thread, .composer, .sidebar")].every(
  (element) => element.scrollWidth <= element.clientWidth
)"""
"""Whether nothing stands out of the window, nor of a part of it that is scrolled upwards and downwards only."""


def exported(**message: str) -> FilePayload:
    """A conversation with one answer, as the page exports it."""
    said = {"id": "1", "parent": None, "role": "assistant", "created": 1, "state": "done", "content": "", **message}
    whole = {"title": said.pop("title", "Long"), "changed": 1, "leaf": "1", "messages": [said]}
    data = {"format": "corral-conversations", "version": 1, "conversations": [whole]}
    return FilePayload(name="a.json", mimeType="application/json", buffer=json.dumps(data).encode())


def test_a_table_without_end_stays_one_table_and_can_be_stopped(page: Page, corral: RunningServer) -> None:
    rows, more = 4000, "%7C9%7C9%7C%0A"
    head = "%7Ca%7Cb%7C%0A%7C-%7C-%7C%0A"
    body = "|".join(f"%7C{number}%7C%23%7C%0A" for number in range(rows))
    say(page, f"!say={head}|{body}|{more * 9}|{more} !hold={rows + 1}")
    table = page.locator("article.assistant .text table")
    expect(table.locator("tr")).to_have_count(rows + 1, timeout=30_000)
    expect(table).to_have_count(1)
    expect(table.locator("tr").nth(1234)).to_have_text(re.compile(r"^\s*1233\s*#\s*$"))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.assistant .state")).to_have_text("Stopped.")
    page.reload()
    expect(table.locator("tr")).to_have_count(rows + 1, timeout=30_000)
    expect(table).to_have_count(1)
    assert table.locator("tr td:first-child").all_text_contents() == [str(number) for number in range(rows)]
    assert page.evaluate(HAS_ITS_WIDTH)


def test_what_follows_a_long_table_is_no_row_of_it(page: Page) -> None:
    rows = "".join(f"| {number} | x |\n" for number in range(900))
    page.locator("aside input[type=file]").set_input_files(
        exported(content=f"Before.\n\n| a | b |\n|---|---|\n{rows}\nAfter **it**.\n\n- one\n")
    )
    page.get_by_role("link", name="Long").click()
    text = page.locator("article.assistant .text")
    expect(text.locator("tr")).to_have_count(901)
    expect(text.locator("table")).to_have_count(1)
    expect(text.locator("strong")).to_have_text("it")
    expect(text.locator("li")).to_have_text("one")


def test_a_table_of_five_thousand_columns_is_shown_as_text(page: Page) -> None:
    say(page, spoken("|a" * 5000 + "|\n" + "|-" * 5000 + "|\n" + "|1|\n" * 300))
    expect(page.locator("article.assistant .figures")).to_be_visible()
    expect(page.locator("article.assistant .text")).to_contain_text("|a|a|a")
    expect(page.locator("article.assistant .text table")).to_have_count(0)
    assert page.evaluate(HAS_ITS_WIDTH)
    page.get_by_role("link", name="New conversation").click()
    say(page, "!tokens=2")
    answers(page, "w1 w2")


def test_characters_that_reorder_text_are_seen_wherever_they_come_from(page: Page) -> None:
    name, seen = f"a{REORDERING}b", "a" + "".join(f"⟦U+{ord(each):04X}⟧" for each in REORDERING) + "b"
    files = page.locator("input[type=file][multiple]")
    files.set_input_files(FilePayload(name=f"{name}.bin", mimeType="", buffer=b"\0"))
    expect(page.get_by_role("status")).to_contain_text(f"{seen}.bin is neither a picture nor text.")
    files.set_input_files(FilePayload(name=f"{name}.txt", mimeType="text/plain", buffer=b"harmless"))
    expect(page.locator(".composer .file")).to_have_text(f"{seen}.txt")
    say(page, f"{name} {spoken(name)} !think={name}")
    answers(page, seen)
    expect(page.locator("article.user .file")).to_have_text(f"{seen}.txt")
    expect(page.locator("article.user .asked")).to_contain_text(seen)
    expect(page.locator("aside li a").first).to_contain_text(seen)

    page.locator("aside input[type=file]").set_input_files(
        exported(title=f"{name} title", model=name, content="x", thinking=name)
    )
    entry = page.get_by_role("listitem").filter(has_text="title")
    entry.get_by_role("link").click()
    expect(page.locator("article.assistant header")).to_have_text(seen)
    expect(page.locator("article.assistant .thought")).to_have_text(seen)
    entry.get_by_role("button", name="More").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(f"{seen} title")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_contain_text(f"{seen} title")
    assert not set(page.locator("html").inner_text()) & set(REORDERING)


def test_words_from_right_to_left_leave_those_around_them_in_place(page: Page) -> None:
    page.locator("aside input[type=file]").set_input_files(
        exported(title=f"{HEBREW} 1", model=f"{HEBREW} 2", content=f"{HEBREW}?")
    )
    link = page.get_by_role("link", name=f"{HEBREW} 1")
    link.click()
    for written in (link, page.locator("article.assistant header b"), page.locator("article.assistant .text")):
        expect(written).to_have_css("direction", "rtl")
        expect(written).to_have_css("unicode-bidi", re.compile("isolate|plaintext"))
    expect(page.locator("article.assistant")).to_have_css("direction", "ltr")


def test_a_million_characters_without_a_space(page: Page) -> None:
    field = page.get_by_role("textbox", name="Write a message")
    field.fill("y" * MILLION)
    assert page.evaluate(HAS_ITS_WIDTH)
    field.fill("")
    page.locator("aside input[type=file]").set_input_files(exported(content="x" * MILLION))
    page.get_by_role("link", name="Long").click()
    text = page.locator("article.assistant .text")
    expect(text.locator(".block")).to_have_count(-(-MILLION // 30_000), timeout=60_000)
    assert text.evaluate("(text) => text.textContent.replaceAll('\\n', '').length") == MILLION
    assert page.evaluate(HAS_ITS_WIDTH)
    say(page, "!tokens=2")
    answers(page, "w1 w2")
    assert page.evaluate(HAS_ITS_WIDTH)


def test_a_million_characters_are_sent_and_answered(page: Page) -> None:
    say(page, f"!say={'z' * MILLION}")
    text = page.locator("article.assistant .text")
    expect(page.locator("article.assistant .figures")).to_be_visible(timeout=60_000)
    expect(text.locator(".block")).to_have_count(-(-MILLION // 30_000), timeout=60_000)
    assert page.evaluate(HAS_ITS_WIDTH)
    page.reload()
    expect(page.locator("article.user .asked")).to_contain_text("zzz")
    assert page.evaluate(HAS_ITS_WIDTH)
