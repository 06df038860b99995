"""The page in the browser: how soon it can be used, how smooth it stays, and what it costs the server and the model.

    python benchmarks/page.py MODEL.gguf [--rounds 5] [--tokens 256] [--browser /usr/bin/chromium]
        [--against CHECKOUT]

Wants Playwright (`pip install 'corral[test]'`) and a Chromium. Prints:

- the time from the address until a message can be typed, in a new profile, on loopback, in turn with a page whose one
  script does no more than put a field there, and that of CHECKOUT (another tree of Corral with its own `.venv`);
- the longest frame (the browser's own count) while an answer of 2,000 tokens streams into a conversation of 1,000
  messages, and while that is scrolled from end to end. The answer is the fake engine's, 100 tokens a second;
- an answer of MODEL read by the page, by a client that only reads, and by one that also sends the page's requests but
  draws nothing, in turns: the server's processor time for a token, and the model's tokens a second, each with its ratio
  to the client that only reads. The browser's own work is part of the page's figures where both share the cores.
"""

import argparse
import http.server
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from measuring import header
from playwright.sync_api import Browser, Page, sync_playwright
from token_cost import ROOT, Server, server

sys.path.insert(0, str(ROOT))

from corral import names
from corral.models import assemble
from corral.store import Store
from tests.conftest import FAKE_ENGINE

WATCH = """() => {
  window.longest = 0;
  new PerformanceObserver((seen) => {
    for (const frame of seen.getEntries()) window.longest = Math.max(window.longest, frame.duration);
  }).observe({ type: "long-animation-frame", buffered: false });
}"""
"""Has a page count its longest frame: those under 50 ms are not told, and stay 0."""
SCROLL = """async () => {
  const thread = document.querySelector(".thread");
  for (let place = thread.scrollHeight; place > 0; place -= 800) {
    thread.scrollTop = place;
    await new Promise(requestAnimationFrame);
  }
}"""
PARAGRAPH = "Some **words** in a paragraph with `code`, a [link](https://example.org) and a list:\n\n- one\n- two\n\n"
RENDERED_EVERY = 0.25
"""Seconds, as in `chat/markdown.js`."""
PROMPT = "Tell a very long story about a ship and its crew."


def main(model: Path, rounds: int, tokens: int, program: str, against: Path | None, *, only_starts: bool) -> None:
    print(header(), end="\n\n")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Store(Path(folder) / "models")
        assemble.write_model(names.parse("measured"), assemble.assemble({model.name: model}, store), store)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        fake = {"CORRAL_ENGINE": str(FAKE_ENGINE), "CORRAL_WORKER_FOLDERS": folder}  # where it keeps its journal
        with ExitStack() as stack:
            one = stack.enter_context(server(ROOT, store.root, Path(folder) / "fake", **fake))
            hosts = {"this tree": one.host, "a trivial page": stack.enter_context(trivial_page())}
            if against is not None:
                hosts["against"] = stack.enter_context(server(against, store.root, Path(folder) / "other", **fake)).host
            starts(browser, hosts, rounds)
            if only_starts:
                return
            smoothness(browser, one)
        with server(ROOT, store.root, Path(folder) / "home") as one:
            costs(browser, one, rounds, tokens)


@contextmanager
def opened(browser: Browser, one: Server) -> Iterator[Page]:
    """The page in a new profile."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.goto(f"http://{one.host}")
    page.wait_for_selector(".composer textarea")
    yield page
    context.close()


def starts(browser: Browser, hosts: Mapping[str, str], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in hosts}
    for _ in range(rounds + 1):
        for name, host in hosts.items():
            context = browser.new_context()
            page = context.new_page()
            begin = time.perf_counter()
            page.goto(f"http://{host}", wait_until="commit")
            page.wait_for_selector(".composer textarea")
            times[name].append((time.perf_counter() - begin) * 1000)
            context.close()
    for name, each in times.items():  # the first round warms up
        print(f"usable after, {name:<24}{_shown(each[1:], 'ms')}")


@contextmanager
def trivial_page() -> Iterator[str]:
    """Where a page is served whose one script puts a field there: the least that a page with a script takes."""
    files = {
        "/": ("text/html", b"<!doctype html><script type=module src=/script.js></script><body></body>"),
        "/script.js": ("text/javascript", b"document.body.innerHTML = '<p class=composer><textarea></textarea></p>'"),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, data = files.get(self.path, ("text/plain", b""))
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listening.server_port}"
        listening.shutdown()


def smoothness(browser: Browser, one: Server) -> None:
    with opened(browser, one) as page:
        page.locator("aside input[type=file]").set_input_files(
            {"name": "long.json", "mimeType": "application/json", "buffer": _conversation(1000)}
        )
        page.locator(".chats a").first.click()
        page.wait_for_selector("article:nth-child(1000)")
        page.evaluate(WATCH)
        page.evaluate(SCROLL)
        print(f"longest frame, scrolling 1,000        {page.evaluate('window.longest'):.0f} ms")
        page.evaluate("window.longest = 0")
        page.fill(".composer textarea", "!tokens=2000 !delay=0.01")
        page.press(".composer textarea", "Enter")
        page.wait_for_selector("article:last-child .figures", timeout=180_000)
        print(f"longest frame, streaming 2,000 tokens {page.evaluate('window.longest'):.0f} ms")


def _conversation(count: int) -> bytes:
    """So many messages, as the page exports them."""
    messages = [
        {
            "id": str(number),
            "parent": str(number - 1) if number else None,
            "role": "assistant" if number % 2 else "user",
            "content": PARAGRAPH * 3 if number % 2 else f"Question {number}?",
            "created": number,
            "state": "done",
        }
        for number in range(count)
    ]
    whole = {"title": "Long", "changed": 1, "leaf": str(count - 1), "messages": messages}
    return json.dumps({"format": "corral-conversations", "version": 1, "conversations": [whole]}).encode()


def costs(browser: Browser, one: Server, rounds: int, tokens: int) -> None:
    asked = {
        "model": "measured",
        "messages": [{"role": "user", "content": PROMPT}],
        "options": {"num_predict": tokens, "temperature": 0},
    }
    taken: dict[str, list[tuple[float, float]]] = {"client": [], "requests": [], "page": []}
    with opened(browser, one) as page:
        list(one.lines("/api/chat", asked))  # loads the model
        for _ in range(rounds):
            taken["client"].append(_by_client(one, asked))
            taken["requests"].append(_by_requests(one, asked))
            taken["page"].append(_by_page(one, page, tokens))
    for place, (name, unit) in enumerate((("processor time a token", "µs"), ("speed", "tokens/s"))):
        values = {side: [pair[place] for pair in pairs] for side, pairs in taken.items()}
        for side in taken:
            ratios = [ours / theirs for ours, theirs in zip(values[side], values["client"], strict=True)]
            print(f"{name}, {side:<10} {_shown(values[side], unit):<30} : client {_shown(ratios, '')}")


def _by_client(one: Server, asked: dict[str, Any]) -> tuple[float, float]:
    before = one.seconds()
    last = json.loads(list(one.lines("/api/chat", asked))[-1])
    return _figures(one.seconds() - before, last["eval_count"], last["eval_duration"])


def _by_requests(one: Server, asked: dict[str, Any]) -> tuple[float, float]:
    """Has the text rendered as often as the page does."""
    before, text, rendered, line = one.seconds(), "", 0.0, b""
    for line in one.lines("/api/chat", asked):
        text += json.loads(line)["message"]["content"]
        if time.perf_counter() - rendered > RENDERED_EVERY:
            rendered = time.perf_counter()
            list(one.lines("/api/markdown", {"text": text}))
    last = json.loads(line)
    return _figures(one.seconds() - before, last["eval_count"], last["eval_duration"])


def _by_page(one: Server, page: Page, tokens: int) -> tuple[float, float]:
    """A new conversation, so that the prompt is the same."""
    page.get_by_role("link", name="New conversation").click()
    page.wait_for_selector(".hello")
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label("num_predict").fill(str(tokens))
    page.get_by_label("temperature").fill("0")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    before = one.seconds()
    with page.expect_response("**/api/chat") as answered:
        page.fill(".composer textarea", PROMPT)
        page.press(".composer textarea", "Enter")
    last = json.loads(answered.value.text().splitlines()[-1])
    page.wait_for_selector("article.assistant .figures", timeout=180_000)
    return _figures(one.seconds() - before, last["eval_count"], last["eval_duration"])


def _figures(seconds: float, tokens: int, nanoseconds: int) -> tuple[float, float]:
    return seconds / tokens * 1e6, tokens / nanoseconds * 1e9


def _shown(values: list[float], unit: str) -> str:
    digits = 0 if max(values) >= 10 else 2
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} {unit} ({low} to {high})"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=256)
    arguments.add_argument("--browser", default="/usr/bin/chromium")
    arguments.add_argument("--against", type=Path, help="another tree of Corral, with its own .venv")
    arguments.add_argument("--only-starts", action="store_true", help="print the first of these and end")
    given = arguments.parse_args()
    main(
        given.model.absolute(),
        given.rounds,
        given.tokens,
        given.browser,
        given.against and given.against.absolute(),
        only_starts=given.only_starts,
    )
