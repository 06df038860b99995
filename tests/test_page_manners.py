"""The page in the browser when something comes between: no room, other tabs, slow reading, a server that goes away."""

import re
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.page_actions import answers, say
from tests.registry import FaultProxy, RegistryServer, noise

pytest_plugins = ["tests.page_fixtures", "tests.registry_fixtures"]

DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type: "text/plain" }));
  return data;
}"""
"""What is being dragged when a file is dropped."""


HOLD = """() => new Promise((held) => {
  indexedDB.open("corral").onsuccess = ({ target }) => {
    const store = target.result.transaction(["conversations", "messages"], "readwrite").objectStore("conversations");
    window.isHeld = true;
    const goOn = () => { if (window.isHeld) store.get("nothing").onsuccess = goOn; };
    goOn();
    held();
  };
})"""
"""Keeps all tabs from reading and writing conversations until `window.isHeld` is false."""


def drop(page: Page, target: str, name: str, text: str) -> None:
    data = page.evaluate_handle(DROP, [name, text])
    assert not page.locator(target).evaluate(
        "(target, dataTransfer) => target.dispatchEvent(new DragEvent('dragover', "
        "{ dataTransfer, bubbles: true, cancelable: true }))",
        data,
    ), "a browser opens what is dropped where nobody takes it"
    page.dispatch_event(target, "drop", {"dataTransfer": data})


def test_a_pull_is_paused_left_and_resumed(page: Page, server: RegistryServer, proxy: FaultProxy) -> None:
    server.put_model("library/slow", "1b", model=noise(12 << 20, 17))
    proxy.rules({"path": "/blobs/", "hold_at": 9 << 20})
    name = f"{proxy.host}/library/slow:1b"
    page.get_by_role("link", name="Models").click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_label("Own registry without encryption").check()
    page.get_by_role("button", name="Get", exact=True).click()
    download = page.locator(".download")
    expect(download.locator("small")).to_contain_text("/ 12.6 MB")
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("main.chat")).to_be_visible()
    page.get_by_role("link", name="Models").click()
    expect(download.locator("progress")).to_have_attribute("value", re.compile(r"^0\.[1-9]"))
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    expect(download).to_contain_text("Paused")
    expect(page.get_by_role("button", name="Go on", exact=True)).to_be_focused()
    page.reload()
    expect(download).to_contain_text("Paused")
    proxy.rules()
    page.get_by_role("button", name="Go on", exact=True).click()
    expect(download).to_have_count(0)
    expect(page.locator(".notice.error")).to_have_count(0)
    page.get_by_role("article", name=name).get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("article", name=name)).to_have_count(0)
    assert proxy.sent() < 12 << 20, "what was there is not fetched again"


def test_a_pull_is_seen_in_every_tab_and_paused_in_another(
    page: Page, server: RegistryServer, proxy: FaultProxy
) -> None:
    server.put_model("library/shared", "1b", model=noise(12 << 20, 23))
    proxy.rules({"path": "/blobs/", "hold_at": 9 << 20})
    name = f"{proxy.host}/library/shared:1b"
    page.get_by_role("link", name="Models").click()
    second = page.context.new_page()
    second.goto(page.url)
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_label("Own registry without encryption").check()
    page.get_by_role("button", name="Get", exact=True).click()
    third = page.context.new_page()
    for tab in (page, second, third):
        if tab is third:
            tab.goto(page.url)
        download = tab.locator(".download")
        expect(download.locator("progress")).to_have_attribute("value", re.compile(r"^0\.[1-9]"))
        expect(download.locator("small")).to_contain_text("/ 12.6 MB")
    second.get_by_role("button", name="Pause").click()
    for tab in (page, second, third):
        expect(tab.locator(".download")).to_contain_text("Paused")
    second.get_by_role("button", name="Go on", exact=True).click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    second.close()
    expect(page.locator(".download")).to_contain_text("Paused")
    proxy.rules()
    page.get_by_role("button", name="Go on", exact=True).click()
    for tab in (page, third):
        expect(tab.locator(".download")).to_have_count(0)
        expect(tab.get_by_role("article", name=name)).to_be_visible()
    page.get_by_role("article", name=name).get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("article", name=name)).to_have_count(0)


def test_files_are_dropped_anywhere_in_a_view(page: Page, tiny_gguf: Path) -> None:
    drop(page, "aside", "notes.txt", "!tokens=2")
    expect(page.locator(".composer .file")).to_have_text("notes.txt")
    drop(page, ".thread", "more.txt", "end")
    expect(page.locator(".composer .file")).to_have_text(["notes.txt", "more.txt"])
    say(page, "Read them.")
    answers(page, "w1 w2")
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Installed")).to_be_visible()
    drop(page, "main.models", "My-Model.gguf", "no model")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_have_value("my-model")
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    expect(page.get_by_role("status")).to_contain_text("My-Model.gguf")


def test_the_time_left_is_told_while_a_long_prompt_is_read(page: Page, corral: RunningServer) -> None:
    say(page, "!read=1.2 !tokens=2 " + " ".join(f"word{number}" for number in range(1800)))
    state = page.locator("article.assistant .state")
    expect(state).to_have_text(re.compile(r"[\d,]+ of 1,8\d\d tokens.* · .*\d s.*left"))
    expect(state.get_by_role("progressbar")).to_have_attribute("value", re.compile(r"^0\.[1-9]"))
    (corral.home / "go").touch()
    answers(page, "w1 w2")


def test_what_there_is_no_room_for_is_shown_exported_and_kept_later(page: Page, corral: RunningServer) -> None:
    browser = page.context.new_cdp_session(page)
    browser.send("Storage.overrideQuotaForOrigin", {"origin": corral.url, "quotaSize": 1})
    side = page.get_by_role("complementary")
    say(page, "!tokens=2 homeless")
    answers(page, "w1 w2")
    expect(page.get_by_role("status")).to_contain_text("no room left for conversations")
    side.get_by_role("link", name="New conversation").click()
    say(page, "!tokens=1 other")
    answers(page, "w1")
    with page.expect_download() as saved:
        side.get_by_role("button", name="Export all").click()
    text = saved.value.path().read_text("utf-8")
    assert "!tokens=1 other" in text
    assert "!tokens=2 homeless" in text
    side.get_by_role("link", name="!tokens=2 homeless").click()
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")

    browser.send("Storage.overrideQuotaForOrigin", {"origin": corral.url})
    side.get_by_role("listitem").filter(has_text="other").get_by_role("button", name="More").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(side.get_by_role("listitem")).to_have_text(["!tokens=2 homeless"])
    page.reload()
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")


def test_everything_is_reached_by_the_keyboard(page: Page, corral: RunningServer) -> None:
    keyboard = page.keyboard
    input = page.get_by_role("textbox", name="Write a message")
    page.get_by_role("link", name="Models").focus()
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Installed")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Installed")).to_be_visible()
    keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    keyboard.press("Enter")
    keyboard.press("Tab")
    expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    page.get_by_role("link", name="Chat").focus()
    keyboard.press("Enter")
    expect(input).to_be_focused()
    keyboard.type("!tokens=9 !hold=2")
    keyboard.press("Enter")
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
    page.get_by_role("button", name="Add files").focus()
    keyboard.press("Tab")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    keyboard.press("Enter")
    expect(page.locator("article.assistant .state")).to_have_text("Stopped.")
    expect(input).to_be_focused()

    opener = page.get_by_role("button", name="Settings of this conversation")
    opener.focus()
    keyboard.press("Enter")
    page.get_by_label("num_predict").focus()
    keyboard.press("ArrowUp")
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()
    keyboard.press("Enter")
    expect(page.get_by_label("num_predict")).to_have_value("")
    page.get_by_label("num_predict").focus()
    keyboard.type("2")
    keyboard.press("Enter")
    expect(opener).to_be_focused()

    page.get_by_role("button", name="More").focus()
    keyboard.press("Enter")
    keyboard.type("Renamed")
    keyboard.press("Enter")
    expect(page.get_by_role("link", name="Renamed")).to_be_visible()
    expect(page.get_by_role("button", name="More")).to_be_focused()


def test_an_answer_is_seen_in_two_tabs_and_stopped_in_the_other(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=1 here")
    answers(page, "w1")
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.locator("article")).to_have_count(2)
    say(page, "!tokens=9 !hold=2")
    for tab in (page, second):
        expect(tab.locator("article.assistant .text").last).to_have_text("w1 w2")
    second.get_by_role("button", name="Stop").click()
    for tab in (page, second):
        expect(tab.locator("article.assistant .state").last).to_have_text("Stopped.")
        expect(tab.get_by_role("button", name="Send")).to_be_visible()
    say(second, "!tokens=3 there")
    for tab in (page, second):
        answers(tab, "w1 w2 w3")
    second.get_by_role("button", name="More").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    for tab in (page, second):
        expect(tab.locator("article")).to_have_count(0)
        expect(tab.get_by_role("complementary").locator("li")).to_have_text("No conversations yet")
    expect(page.get_by_role("status")).to_contain_text("This conversation is not in this browser.")


def test_what_two_tabs_keep_at_once_is_not_lost(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=1 first")
    answers(page, "w1")
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.locator("article")).to_have_count(2)
    third = page.context.new_page()
    third.goto(corral.url)
    third.evaluate(HOLD)
    say(second, "!tokens=3 second")
    rename(page, "Renamed")
    third.evaluate("window.isHeld = false")
    for tab in (page, second):
        answers(tab, "w1 w2 w3")
        expect(tab.locator("article")).to_have_count(4)
        expect(tab.get_by_role("link", name="Renamed")).to_be_visible()
    page.reload()
    expect(page.locator("article")).to_have_count(4)
    expect(page.get_by_role("link", name="Renamed")).to_be_visible()


def test_a_tab_that_has_seen_less_of_a_conversation_takes_nothing_back(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=4 !hold=2")
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
    second = page.context.new_page()
    second.goto(f"{corral.url}/#/models")
    second.get_by_role("link", name="Chat").click()
    rename(second, "Renamed")
    (corral.home / "go").touch()
    answers(page, "w1 w2 w3 w4")
    for tab in (page, second):
        tab.reload()
        expect(tab.get_by_role("link", name="Renamed")).to_be_visible()
    second.get_by_role("button", name="More").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("article")).to_have_count(0)


def rename(page: Page, title: str) -> None:
    page.get_by_role("button", name="More").click()
    page.get_by_role("textbox", name="Title").fill(title)
    page.get_by_role("textbox", name="Title").press("Enter")


def test_a_conversation_deleted_in_the_middle_of_an_answer_stays_deleted(page: Page, corral: RunningServer) -> None:
    say(page, "!tokens=9 !hold=2 deleted")
    expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
    second = page.context.new_page()
    second.goto(corral.url)
    second.get_by_role("button", name="More").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    second.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("article")).to_have_count(0)
    page.get_by_role("link", name="Server").click()
    newest = page.get_by_role("region", name="Last requests").get_by_role("row").nth(1)
    expect(newest).to_contain_text("stopped by its user")
    page.reload()
    page.get_by_role("link", name="Chat").click()
    expect(page.get_by_role("complementary").locator("li")).to_have_text("No conversations yet")


def test_a_server_goes_away_in_the_middle_of_an_answer_and_comes_back(
    browser: Browser, tmp_path: Path, tiny_gguf: Path
) -> None:
    add_model(tmp_path / ".ollama" / "models", "fake", tiny_gguf)
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    with running_server(tmp_path, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        page.goto(server.url)
        say(page, "!tokens=9 !hold=2")
        expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
        server.process.kill()
    page.get_by_role("link", name="Models").click()
    expect(page.locator("main.models .cards")).to_contain_text("The server does not answer.")
    page.get_by_role("link", name="Chat").click()
    expect(page.get_by_role("status")).to_contain_text("The server does not answer.")
    shutil.rmtree(tmp_path / "engines")
    (tmp_path / "go").touch()
    with running_server(tmp_path, CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_HOST=server.host):
        expect(page.get_by_label("Model", exact=True)).to_have_value("fake:latest")
        page.get_by_role("complementary").get_by_role("link", name="!tokens=9").click()
        expect(page.locator("article.assistant .text")).to_have_text("w1 w2")
        expect(page.locator("article.assistant .state")).to_contain_text(
            "This answer was cut off", timeout=20000
        )  # the last retry
        page.get_by_role("button", name="Answer again").click()
        answers(page, "w1 w2 w3 w4 w5 w6 w7 w8 w9")
    context.close()


def test_the_list_of_conversations_opens_and_closes_on_a_narrow_window(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    side = page.get_by_role("complementary")
    opener = page.get_by_role("button", name="Conversations")
    expect(side).to_be_hidden()
    opener.click()
    expect(side.get_by_role("searchbox")).to_be_focused()
    side.get_by_role("button", name="Close").click()
    expect(side).to_be_hidden()
    opener.click()
    page.keyboard.press("Escape")
    expect(side).to_be_hidden()
    say(page, "!tokens=1")
    answers(page, "w1")
    opener.click()
    side.get_by_role("link", name="!tokens=1").click()
    expect(side).to_be_hidden()
