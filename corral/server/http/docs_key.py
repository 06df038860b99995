"""What a browser sees of `/docs` where a key is wanted: a field for it. The key stays in the memory of that page.

A browser cannot be made to send a key with an address that is typed or clicked. So the refusal is a page, whose script
asks for the documents again with what was put into the field, and shows them in its own place.
"""

import base64
import hashlib
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral.errors import CorralError, KeyRequired
from corral.server.http.dialect import Dialect
from corral.server.http.plain import PLAIN

_SCRIPT = """
const form = document.querySelector("form");
const key = form.querySelector("input");

async function ask(path) {
  const response = await fetch(path, { headers: { accept: "*/*", authorization: `Bearer ${key.value.trim()}` } });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

async function show() {
  const shown = new DOMParser().parseFromString(await (await ask("docs")).text(), "text/html");
  document.title = shown.title;
  document.head.append(...shown.querySelectorAll("style"));
  document.body.replaceWith(shown.body);
  document.querySelector("a[href='openapi.json']").addEventListener("click", save);
}

async function save(event) {
  event.preventDefault();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await ask("openapi.json")).blob());
  link.download = "openapi.json";
  link.click();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show().catch((error) => (form.querySelector("[role=alert]").textContent = error.message));
});
"""
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
form { display: flex; flex-wrap: wrap; gap: 0.5rem; }
input, button { font: inherit; padding: 0.3rem 0.6rem; }
[role=alert] { flex-basis: 100%; margin: 0; }
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Corral: a key is needed</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>This server asks for a key</h1>
<p>Whoever runs it makes one with <code>corral keys create NAME</code>. It is kept until this page is left.</p>
<form>
<label for="key">API key</label>
<input id="key" type="password" autocomplete="off" required autofocus>
<button>Show the routes</button>
<p role="alert"></p>
</form>
</main>
<script type="module">{_SCRIPT}</script>
</body>
</html>
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; connect-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may run and load: its one script, and what that asks this server for."""


class _Refusal(Response):
    """The page for those who would rather have HTML, and a line of text for others."""

    def __init__(self, text: Response) -> None:
        super().__init__(_PAGE, text.status_code, {**_without_body(text), "content-security-policy": _POLICY})
        self._text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        answer: Any = super().__call__ if b"text/html" in accepted else self._text
        await answer(scope, receive, send)


def _without_body(text: Response) -> dict[str, str]:
    kept = {name: value for name, value in text.headers.items() if name not in ("content-length", "content-type")}
    return {**kept, "content-type": "text/html; charset=utf-8", "vary": "Accept"}


def _answer(error: CorralError) -> Response:
    text = PLAIN.answer(error)
    return _Refusal(text) if isinstance(error, KeyRequired) else text


DOCUMENTS = Dialect(_answer, PLAIN.line, statuses=PLAIN.statuses)
