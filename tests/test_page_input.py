"""The page in the browser with what nobody should write: endless tables, text that turns around, endless words."""

import json
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.conftest import RunningServer
from tests.page_actions import answers, say, spoken

pytest_plugins = ["tests.page_fixtures"]

REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn what follows them around, or set it apart, until the end of a line."""
SEEN = "".join(f"⟦U+{ord(character):04X}⟧" for character in REORDERING)
ROW = "| 1 | 2 |\n"
MILLION = 1_000_000
SLOW = 120_000
"""Milliseconds: much is rendered, beside other tests."""
LENGTH = "(element) => element.textContent.replaceAll(/[^x]/g, '').length"
LENGTH_OF_CODE = """(length) =>
  [...document.querySelectorAll(".code code")].reduce((sum, code) => sum + code.textContent.length, 0) === length"""
"""Whether all code that is shown has so many characters."""


def fits(page: Page) -> bool:
    """Whether nothing stands outside of the window, so that nobody has to scroll sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_a_table_without_end_streams_and_is_stopped(page: Page, corral: RunningServer) -> None:
    say(page, spoken("| left | right |\n|--|--|\n", ROW * 100, times=90) + " !hold=81")
    text = page.locator("article.assistant .text")
    expect(text.locator("td")).to_have_count(80 * 100 * 2, timeout=SLOW)
    heads = text.locator("table tr:first-child:has(th)").all_inner_texts()
    assert len(heads) > 1, "it is longer than what is rendered at once"
    assert set(heads) == {"left\tright"}
    assert set(text.locator("tr:has(td)").all_inner_texts()) == {"1\t2"}
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.assistant .state")).to_have_text("Stopped.", timeout=SLOW)
    assert fits(page)
    say(page, spoken("fine"))
    answers(page, "fine", SLOW)


def test_code_without_end_stays_code(page: Page) -> None:
    say(page, spoken("```python\n", "x = 1\n" * 1000, times=12))
    text = page.locator("article.assistant .text")
    page.wait_for_function(LENGTH_OF_CODE, arg=len("x = 1\n") * 12_000)
    assert "".join(text.locator(".code code").all_inner_texts()) == "x = 1\n" * 12_000
    expect(text.locator(".block > :not(.code)")).to_have_count(0)


def test_a_table_of_5000_columns_is_shown(page: Page) -> None:
    columns = 5000
    say(page, spoken("|" + "a|" * columns + "\n|" + "-|" * columns + "\n", "b\n", times=3000))
    expect(page.locator("article.assistant .figures")).to_be_visible(timeout=SLOW)
    text = page.locator("article.assistant .text")
    expect(text.locator("th")).to_have_count(columns, timeout=SLOW)
    expect(text).to_contain_text("b")
    expect(text.locator("td"), "a row of one letter has as many cells as the head").to_have_count(columns)
    assert fits(page)
    say(page, spoken("fine"))
    answers(page, "fine", SLOW)


def test_a_million_characters_without_a_space_are_wrapped(page: Page) -> None:
    say(page, spoken("x" * 10_000, times=MILLION // 10_000))
    expect(page.locator("article.assistant .figures")).to_be_visible(timeout=SLOW)
    text = page.locator("article.assistant .text")
    expect(text.locator(".block")).to_have_count(34, timeout=SLOW)
    assert text.evaluate(LENGTH) == MILLION
    assert text.evaluate("(element) => element.scrollWidth <= element.clientWidth")
    assert fits(page)
    page.reload()
    expect(page.locator("article.assistant .figures")).to_be_in_viewport(timeout=SLOW)
    expect(text.locator(".block")).to_have_count(34, timeout=SLOW)
    assert text.evaluate(LENGTH) == MILLION
    say(page, spoken("fine"))
    answers(page, "fine", SLOW)
    assert fits(page)


def test_a_million_characters_without_a_space_are_sent(page: Page) -> None:
    input = page.get_by_role("textbox", name="Write a message")
    input.fill("x" * MILLION)
    input.press("End")
    input.press_sequentially("yz")
    expect(input).to_have_value("x" * MILLION + "yz")
    expect(page.get_by_role("button", name="Send")).to_be_in_viewport()
    assert fits(page)
    input.press("Enter")
    answers(page, "w1 w2 w3")
    expect(page.locator("article.user .asked")).to_have_text("x" * MILLION + "yz")
    expect(page.get_by_role("complementary").locator("li a")).to_have_text("x" * 59 + "…")
    assert fits(page)


def conversation(text: str) -> FilePayload:
    """A file with a conversation that has a text wherever somebody else's words may stand."""
    question = {"id": "1", "role": "user", "content": text, "files": [{"name": text, "text": text}]}
    answer = {"id": "2", "parent": "1", "role": "assistant", "model": text, "content": text, "thinking": text}
    whole: dict[str, Any] = {"title": text, "changed": 1, "leaf": "2"}
    messages = [{**question, "parent": None, "state": "done"}, {**answer, "state": "done"}]
    exported = {"format": "corral-conversations", "version": 1, "conversations": [{**whole, "messages": messages}]}
    return FilePayload(name="other.json", mimeType="application/json", buffer=json.dumps(exported).encode())


def test_characters_that_turn_text_around_are_seen(page: Page) -> None:
    hostile, shown = f"gpj.{REORDERING}exe", f"gpj.{SEEN}exe"
    page.locator("aside input[type=file]").set_input_files(conversation(hostile))
    side = page.get_by_role("complementary")
    expect(side.locator("li a")).to_have_text(shown)
    side.locator("li a").click()
    expect(page.locator("article.assistant header b")).to_have_text(shown)
    expect(page.locator("article.assistant .text")).to_have_text(shown)
    expect(page.locator("article.assistant .thought")).to_have_text(shown)
    expect(page.locator("article.user .asked")).to_have_text(shown)
    expect(page.locator("article.user .file")).to_have_text(shown)
    page.locator("input[type=file][multiple]").set_input_files(
        FilePayload(name=hostile, mimeType="", buffer=b"text"),
    )
    expect(page.locator(".composer .file")).to_have_text(shown)
    page.locator("input[type=file][multiple]").set_input_files(FilePayload(name=hostile, mimeType="", buffer=b"\0"))
    expect(page.get_by_role("status")).to_contain_text(f"{shown} is neither a picture nor text.")
    side.get_by_role("button", name="More").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(shown)
    expect(page.get_by_role("dialog").get_by_role("textbox")).to_have_value(hostile)
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(f"Delete “{shown}” for good?")


def test_a_file_whose_name_turns_around_becomes_no_other_model(page: Page) -> None:
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Installed")).to_be_visible()
    page.locator("input[accept='.gguf']").set_input_files(
        FilePayload(name="a\u202eb.gguf", mimeType="", buffer=b"no model")
    )
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text("A model from a⟦U+202E⟧b.gguf")
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    expect(page.get_by_role("status")).to_contain_text("a⟦U+202E⟧b.gguf is being sent")
    expect(page.locator(".notice.error")).to_contain_text("invalid model name")
    expect(page.get_by_role("article", name="b")).to_have_count(0)


@pytest.mark.parametrize("text", ["שלום עולם", "مرحبا بالعالم"])
def test_text_from_right_to_left_runs_from_right_to_left(page: Page, text: str) -> None:
    say(page, f"{text} {spoken(text)}")
    answers(page, text)
    for place in ("article.user .asked", "article.assistant .text"):
        assert page.locator(place).evaluate("(element) => getComputedStyle(element).direction") == "rtl"
    assert page.locator("html").evaluate("(element) => getComputedStyle(element).direction") == "ltr"
