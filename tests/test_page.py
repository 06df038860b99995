"""The page in the browser, used as a person does: in Chromium, over the fake engine and a real registry."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from corral import EMULATES, __version__
from corral.server.page.files import files
from tests import kits
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.hub_api import running_hub_api
from tests.page_actions import answers, say, spoken
from tests.registry import RegistryServer

pytest_plugins = ["tests.page_fixtures", "tests.registry_fixtures"]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwADAgH/p9zBhAAAAABJRU5ErkJggg=="
PASTE = """(target, picture) => {
  const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "dot.png", { type: "image/png" }));
  target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""
"""What pasting a picture amounts to."""
STATIC = Path(__file__).parent.parent / "corral" / "server" / "page" / "static"


def test_a_conversation_is_answered_and_kept(page: Page) -> None:
    say(page, "!tokens=4 first")
    answers(page, "w1 w2 w3 w4")
    expect(page.locator("article.assistant .figures")).to_contain_text("4 tokens")
    say(page, "!tokens=2 second")
    answers(page, "w1 w2")
    page.reload()
    expect(page.locator("article")).to_have_count(4)
    expect(page.get_by_role("complementary").get_by_role("link", name="!tokens=4 first")).to_be_visible()


def test_an_answer_goes_on_when_the_page_is_loaded_again(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=6 !hold=2")
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
    page.reload()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    (corral.home / "go").touch()
    answers(page, "w1 w2 w3 w4 w5 w6")
    expect(page.locator("article.assistant .figures")).to_contain_text("6 tokens")


def test_an_answer_goes_on_in_another_view(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=3 !hold=1")
    expect(page.locator("article.assistant .text")).to_have_text("w1")
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Installed")).to_be_visible()
    (corral.home / "go").touch()
    page.go_back()
    answers(page, "w1 w2 w3")


def test_a_conversation_opens_at_its_end(page: Page) -> None:
    say(page, spoken("# Title\n\n" + "A paragraph.\n\n- one\n- two\n\n" * 8))
    expect(page.locator("article.assistant .figures")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    say(page, "again")
    expect(page.locator("article.assistant .figures")).to_have_count(2)
    page.reload()
    expect(page.locator("article.assistant").last.locator(".text h1").first).to_have_text("Title")
    expect(page.locator("article.assistant .figures").last).to_be_in_viewport()
    page.locator(".thread").evaluate("(thread) => (thread.scrollTop = 0)")
    expect(page.locator("article.user").first).to_be_in_viewport()
    second = page.context.new_page()
    second.goto(page.url)
    second.get_by_role("button", name="More").click()
    second.get_by_role("textbox", name="Title").fill("Renamed")
    second.get_by_role("textbox", name="Title").press("Enter")
    expect(page.get_by_role("link", name="Renamed")).to_be_visible()
    expect(page.locator("article.user").first).to_be_in_viewport()


def test_an_answer_can_be_stopped(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=9 !hold=2")
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.assistant .state")).to_have_text("Stopped.")
    say(page, "!tokens=1")
    answers(page, "w1")


def test_a_question_is_edited_and_both_branches_can_be_walked(page: Page) -> None:
    say(page, "!tokens=1 old")
    answers(page, "w1")
    page.get_by_role("button", name="Edit and ask again").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("!tokens=2 new")
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    answers(page, "w1 w2")
    expect(page.locator("article")).to_have_count(2)
    page.get_by_role("button", name="Earlier branch").click()
    expect(page.locator("article.user .asked")).to_have_text("!tokens=1 old")
    expect(page.locator("article.assistant .text")).to_have_text("w1")
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator("article.assistant header")).to_contain_text("2 / 2")


def test_a_message_is_deleted_after_a_question(page: Page) -> None:
    say(page, "!tokens=1")
    answers(page, "w1")
    page.locator("article.assistant").get_by_role("button", name="Delete from here on").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("article")).to_have_count(1)


def test_two_models_answer_side_by_side(page: Page) -> None:
    page.get_by_label("A second model that answers beside it").select_option("other:latest")
    say(page, "!tokens=2")
    expect(page.locator(".pair article.assistant .text")).to_have_text(["w1 w2", "w1 w2"])
    expect(page.locator(".pair article.assistant header b")).to_have_text(["other:latest", "fake:latest"])


def test_markdown_is_formatted_and_code_can_be_copied(page: Page) -> None:
    say(page, spoken("# Title\n\nA **bold** word.\n\n```python\nx = 1\n```\n\n| a |\n|---|\n| 1 |\n"))
    text = page.locator("article.assistant .text")
    expect(text.get_by_role("heading", name="Title")).to_be_visible()
    expect(text.locator("strong")).to_have_text("bold")
    expect(text.locator(".code pre .mi")).to_have_text("1")
    expect(text.get_by_role("cell", name="1")).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1\n"


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>window.broken = 1</script>",
        "<img src=x onerror='window.broken = 1'>",
        "[click](javascript:window.broken=1)",
        "x" * 3000,
    ],
)
def test_what_a_model_writes_is_shown_and_does_nothing(page: Page, hostile: str) -> None:
    say(page, spoken(hostile))
    answers(page, hostile)
    assert page.evaluate("window.broken") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_context_is_counted_before_sending(page: Page) -> None:
    page.get_by_label("Model", exact=True).select_option("turns:latest")
    page.get_by_role("textbox", name="Write a message").fill("one two three")
    expect(page.locator(".meter small")).to_have_text(re.compile(r"^\d+ of [\d,]+ tokens$"))
    before = page.locator(".meter small").inner_text()
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("System prompt").fill("Be brief and kind to everybody.")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    expect(page.locator(".meter small")).not_to_have_text(before)


def test_a_text_file_goes_with_a_message(page: Page, corral: RunningServer) -> None:
    page.locator("input[type=file][multiple]").set_input_files(
        FilePayload(name="notes.txt", mimeType="text/plain", buffer=b"!tokens=5")
    )
    expect(page.locator(".composer .file")).to_have_text("notes.txt")
    say(page, "Read it.")
    answers(page, "w1 w2 w3 w4 w5")
    page.locator("input[type=file][multiple]").set_input_files(
        FilePayload(name="data.bin", mimeType="", buffer=b"\0\1\2")
    )
    expect(page.get_by_role("status")).to_contain_text("data.bin is neither a picture nor text.")


def test_thoughts_are_folded_and_calls_of_tools_are_shown(page: Page) -> None:
    page.get_by_label("Model", exact=True).select_option("turns:latest")
    say(page, "!tokens=1 !think=hm|so !call=weather")
    answers(page, "w1")
    thought = page.locator("details.thinking")
    expect(thought).not_to_have_attribute("open", "")
    thought.get_by_text("Thoughts").click()
    expect(thought.locator(".thought")).to_have_text("hmso")
    page.locator("details.call").get_by_text("weather").click()
    expect(page.locator("details.call pre")).to_contain_text('"city": "Oslo"')


def test_a_token_has_alternatives_to_go_on_from(page: Page) -> None:
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("Keep the alternatives of every token").check()
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    say(page, "!tokens=3")
    answers(page, "w1 w2 w3")
    page.get_by_role("button", name="Tokens and their alternatives").click()
    page.locator(".tokens .token").nth(1).click()
    page.locator(".alternatives .token").nth(1).click()
    expect(page.locator("article.assistant header")).to_contain_text("2 / 2")
    expect(page.locator("article.assistant .text")).to_contain_text("w1")


def test_an_answer_fits_the_schema_of_the_settings(page: Page) -> None:
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("Format").fill("{broken")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    expect(page.get_by_role("alert")).to_contain_text("The format is no JSON")
    page.get_by_label("Format").fill('{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}')
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    say(page, "Answer.")
    answers(page, '{"a": 1}')


def test_a_picture_is_pasted_and_sent(page: Page) -> None:
    page.get_by_role("textbox", name="Write a message").evaluate(PASTE, PNG)
    expect(page.locator(".composer .file img")).to_be_visible()
    with page.expect_request("**/api/chat") as asked:
        say(page, "What is it?")
    sent = asked.value.post_data_json
    assert sent is not None
    assert sent["messages"][-1]["images"] == [PNG]
    expect(page.locator("article.user img")).to_be_visible()


def test_settings_are_kept_under_a_name(page: Page) -> None:
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("num_predict").fill("2")
    page.get_by_role("button", name="Save under a name").click()
    page.get_by_label("Name", exact=True).fill("short")
    page.get_by_role("dialog").last.get_by_role("button", name="Save under a name").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("Saved settings").select_option("short")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    say(page, "!tokens=9")
    answers(page, "w1 w2")
    expect(page.locator("article.assistant .figures")).to_contain_text("cut at the limit")


def test_conversations_are_searched_renamed_saved_taken_over_and_deleted(page: Page) -> None:
    say(page, "!tokens=2 needle")
    answers(page, "w1 w2")
    side = page.get_by_role("complementary")
    side.get_by_role("link", name="New conversation").click()
    say(page, "!tokens=1 hay")
    answers(page, "w1")
    side.get_by_role("searchbox").fill("NEEDLE")
    expect(side.locator("li")).to_have_count(1)
    side.get_by_role("button", name="More").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as Markdown").click()
    assert "## You\n\n!tokens=2 needle\n" in saved.value.path().read_text("utf-8")
    with page.expect_download() as all_saved:
        side.get_by_role("button", name="Export all").click()
    side.get_by_role("button", name="More").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(side.locator("li")).to_have_text("Nothing found")
    page.locator("aside input[type=file]").set_input_files(all_saved.value.path())
    expect(page.get_by_role("status")).to_contain_text("Conversations imported: 2")
    side.get_by_role("link", name="!tokens=2 needle").click()
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")


def test_a_file_without_conversations_is_refused(page: Page) -> None:
    page.locator("aside input[type=file]").set_input_files(
        FilePayload(name="other.json", mimeType="application/json", buffer=json.dumps({"format": "x"}).encode())
    )
    expect(page.get_by_role("status")).to_contain_text("other.json has no conversations that were exported here.")


def test_two_tabs_see_each_others_messages(page: Page) -> None:
    say(page, "!tokens=1 here")
    answers(page, "w1")
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.locator("article")).to_have_count(2)
    say(second, "!tokens=2 there")
    answers(second, "w1 w2")
    expect(page.locator("article")).to_have_count(4)


def test_models_are_described_copied_derived_and_deleted(page: Page) -> None:
    page.get_by_role("link", name="Models").click()
    card = page.get_by_role("article", name="fake:latest")
    card.get_by_role("button", name="Details").click()
    expect(page.get_by_role("dialog")).to_contain_text("Architecture")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    card.get_by_role("button", name="Copy").click()
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    expect(page.get_by_role("article", name="fake-copy:latest")).to_be_visible()
    card.get_by_role("button", name="New from this").click()
    page.get_by_label("System prompt").fill("Speak like a pirate.")
    page.get_by_label("num_ctx").fill("512")
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    derived = page.get_by_role("article", name="my-fake:latest")
    derived.get_by_role("button", name="Details").click()
    page.get_by_role("dialog").get_by_text("System prompt").click()
    expect(page.get_by_role("dialog")).to_contain_text("Speak like a pirate.")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    for name in ("my-fake:latest", "fake-copy:latest"):
        page.get_by_role("article", name=name).get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("article", name=name)).to_have_count(0)


def test_a_file_becomes_a_model(page: Page, tiny_gguf: Path) -> None:
    page.get_by_role("link", name="Models").click()
    page.locator("input[accept='.gguf']").set_input_files(tiny_gguf)
    page.get_by_role("dialog").get_by_label("Name").fill("mine")
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    card = page.get_by_role("article", name="mine:latest")
    card.get_by_role("button", name="Details").click()
    expect(page.get_by_role("dialog")).to_contain_text("with a context of 2,048 tokens")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    page.locator("input[accept='.gguf']").set_input_files(FilePayload(name="bad.gguf", mimeType="", buffer=b"no model"))
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    expect(page.get_by_role("status")).to_contain_text("bad.gguf")
    card.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()


def test_a_model_is_pulled(page: Page, server: RegistryServer, tiny_gguf: Path) -> None:
    server.put_model("library/tiny", "1b", model=tiny_gguf.read_bytes())
    name = f"{server.host}/library/tiny:1b"
    page.get_by_role("link", name="Models").click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_label("Own registry without encryption").check()
    page.get_by_role("button", name="Get", exact=True).click()
    expect(page.get_by_role("article", name=name)).to_be_visible()
    page.get_by_role("textbox", name="Name").fill(f"{name}-missing")
    page.get_by_role("button", name="Get", exact=True).click()
    expect(page.locator(".download .error")).to_contain_text("file does not exist")
    page.get_by_role("button", name="Do not go on").click()
    expect(page.locator(".download")).to_have_count(0)


def test_the_hub_is_searched(browser: Browser, tmp_path: Path) -> None:
    with running_hub_api() as hub, running_server(tmp_path, HF_ENDPOINT=hub.url) as server:
        hub.put("ann/tiny-GGUF", {"tiny-Q4_K_M.gguf": 2_000_000_000, "tiny-Q8_0.gguf": 9_000_000_000_000})
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        page.goto(f"{server.url}/#/models")
        page.get_by_role("searchbox", name="Search the hub").fill("tiny")
        page.get_by_role("button", name="Search").click()
        rows = page.get_by_role("row").filter(has_text="ann/tiny-GGUF")
        expect(rows.nth(0)).to_contain_text("Q4_K_M2 GB")
        expect(rows.nth(1)).to_contain_text("9 TBno")
        context.close()


def test_the_server_is_shown_at_work(page: Page) -> None:
    page.get_by_label("Model", exact=True).select_option("fake:latest")
    say(page, "!tokens=1")
    answers(page, "w1")
    page.get_by_role("link", name="Server").click()
    card = page.get_by_role("article", name="fake:latest")
    expect(card).to_contain_text("Slots in use")
    about = page.locator(".panel").first
    expect(about).to_contain_text(f"Corral {__version__}, compatible with Ollama {EMULATES}")
    expect(about).to_contain_text("EngineCORRAL_ENGINE")
    expect(page.get_by_role("region", name="Last requests").get_by_role("row").nth(1)).to_contain_text("fake:latest")
    page.get_by_text("Show the last lines").click()
    expect(page.get_by_role("region", name="Log")).to_contain_text("POST /api/chat")
    card.get_by_role("button", name="Unload").click()
    expect(card).to_have_count(0)


def test_a_server_that_went_away_is_said(browser: Browser, tmp_path: Path, tiny_gguf: Path) -> None:
    add_model(tmp_path / ".ollama" / "models", "fake", tiny_gguf)
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    with running_server(tmp_path, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        page.goto(server.url)
        say(page, "!tokens=1")
        answers(page, "w1")
    say(page, "!tokens=2 afterwards")
    expect(page.locator("article.assistant .state").last).to_contain_text("The server does not answer.")
    expect(page.locator("article.user .asked").last).to_have_text("!tokens=2 afterwards")
    context.close()


@pytest.mark.parametrize(("language", "send"), [("en-GB", "Send"), ("zh-CN", "发送")])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_anybody(
    browser: Browser, corral: RunningServer, language: str, send: str, theme: str
) -> None:
    """No violation that axe-core finds, in any view, at two widths."""
    page = opened_with_axe(browser, corral, language, theme)
    page.locator(".composer textarea").fill(spoken("# A\n\n[b](https://example.org)\n\n```python\nx = 1  # y\n```\n"))
    page.get_by_role("button", name=send).click()
    expect(page.locator("article.assistant .figures")).to_be_visible()
    for view in ("chat", "models", "server"):
        page.locator(f"nav a[data-view={view}]").click()
        expect(page.locator(f"main.{view}")).to_be_visible()
        for width in (1200, 390):
            page.set_viewport_size({"width": width, "height": 800})
            nothing_is_in_the_way(page, f"{view}, {width}")
    page.context.close()


DIALOGS = {
    "settings of a conversation": ("chat", ".bar > button:last-child"),
    "more of a conversation": ("chat", "aside li button"),
    "editing": ("chat", "article.user footer button:nth-of-type(2)"),
    "tokens": ("chat", "article.assistant footer button:nth-of-type(3)"),
    "deleting a message": ("chat", "article.assistant footer button:nth-of-type(4)"),
    "details of a model": ("models", ".cards article:first-child .row button:nth-of-type(1)"),
    "a derived model": ("models", ".cards article:first-child .row button:nth-of-type(2)"),
    "a copy": ("models", ".cards article:first-child .row button:nth-of-type(3)"),
    "deleting a model": ("models", ".cards article:first-child .row button:nth-of-type(4)"),
    "settings of the page": ("server", "header.top > button"),
}
"""The view and the button that open each dialog."""


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_dialog_stands_in_the_way_of_anybody(
    browser: Browser, corral: RunningServer, language: str, theme: str
) -> None:
    """No violation that axe-core finds in any dialog, nor beside an answer with all that one can have."""
    page = opened_with_axe(browser, corral, language, theme)
    page.locator(".bar select").first.select_option("turns:latest")
    page.locator(".bar > button:last-child").click()
    page.locator("dialog input[type=checkbox]").check()
    page.locator("dialog .main").click()
    table = "| a | b |\n|---|---|\n| 1 | $x^2$ |\n\n- [ ] task\n"
    page.locator(".composer textarea").fill(f"{spoken(table)} !think=hm !call=weather")
    page.keyboard.press("Enter")
    expect(page.locator("article.assistant .figures")).to_be_visible()
    expect(page.locator("article.assistant .text td").first).to_be_visible()
    page.locator("details.thinking summary").click()
    page.locator("details.call summary").click()
    nothing_is_in_the_way(page, "an answer")
    for name, (view, opener) in DIALOGS.items():
        if not page.locator(f"main.{view}").is_visible():
            page.locator(f"nav a[data-view={view}]").click()
        for width in (1200, 390):
            page.set_viewport_size({"width": width, "height": 800})
            if width == 390 and opener.startswith("aside"):
                page.locator(".bar .narrow").click()
            page.locator(opener).first.click()
            expect(page.locator("dialog[open]")).to_be_visible()
            nothing_is_in_the_way(page, f"{name}, {width}")
            page.keyboard.press("Escape")
            expect(page.locator("dialog")).to_have_count(0)
            if width == 390 and opener.startswith("aside"):
                page.locator(".sidebar li a").first.click()
    page.context.close()


def opened_with_axe(browser: Browser, corral: RunningServer, language: str, theme: str) -> Page:
    """The page in a window of its own, with axe-core in it, which its policy would not let in."""
    context = browser.new_context(locale=language, color_scheme=theme, bypass_csp=True)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(corral.url)
    page.evaluate((kits.BROWSER.folder() / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8"))
    return page


def nothing_is_in_the_way(page: Page, where: str) -> None:
    found = page.evaluate("axe.run()")["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == [], where
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where


def test_what_a_browser_loads_is_small() -> None:
    loaded = files().values()
    assert sum(len(file.data) for file in loaded) < 150_000
    assert sum(len(file.compressed) for file in loaded) < 50_000


def test_both_languages_say_everything() -> None:
    words = {name: _keys(STATIC / "words" / f"{name}.js") for name in ("en", "zh")}
    assert words["en"] == words["zh"]
    used = {
        key for path in STATIC.rglob("*.js") for key in re.findall(r'\bsay\(\s*"([\w.]+)"', path.read_text("utf-8"))
    }
    assert used <= words["en"]


def _keys(path: Path) -> set[str]:
    return {one or other for one, other in re.findall(r'^  (?:"([\w.]+)"|(\w+)):', path.read_text("utf-8"), re.M)}
