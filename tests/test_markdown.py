"""Markdown as HTML: what is formatted, and that nothing in it can run, load or hide."""

import re
from html.parser import HTMLParser

import pytest

from corral.rendering.markdown import MAX_CHARACTERS, blocks
from tests.asking import ask, post
from tests.conftest import RunningServer

EVERYTHING = """\
# Heading

A *para* with `code`, ~~old~~ https://example.org/x, $a^2$ and \\(x \\le 3\\). It costs $5 or $6.

- [x] done

\\[
x
- y = \\frac{1}{2}
\\]

| a | b |
|:-:|--:|
| 1 | 2 |

```python
def f(): return "<b>"
```
"""


class Parts(HTMLParser):
    """The names of elements, and all attributes with their values."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs


def html(text: str) -> str:
    return "".join(block.html for block in blocks(text))


def test_each_block_says_on_which_line_it_begins() -> None:
    lines = EVERYTHING.split("\n")
    assert [lines[block.line][:5] for block in blocks(EVERYTHING)] == [
        "# Hea",
        "A *pa",
        "- [x]",
        "\\[",
        "| a |",
        "```py",
    ]


@pytest.mark.parametrize(
    "found",
    [
        "<h1>Heading</h1>",
        "<em>para</em>",
        "<code>code</code>",
        "<s>old</s>",
        '<a href="https://example.org/x" rel="noopener noreferrer nofollow">',
        "<msup><mi>a</mi><mn>2</mn></msup>",
        '<math display="inline"><mrow><mi>x</mi><mo>≤</mo>',
        "It costs $5 or $6.",
        'checked="checked"',
        '<math display="block"><mrow><mi>x</mi><mo>−</mo><mi>y</mi>',
        '<th align="center">a</th>',
        '<td align="right">2</td>',
        '<span class="k">def</span>',
        '<span class="s2">"&lt;b&gt;"</span>',
    ],
)
def test_what_models_write_is_formatted(found: str) -> None:
    assert found in html(EVERYTHING)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "[a](JAVASCRIPT&#58;alert(1))",
        "[a](data:text/html,<script>alert(1)</script>)",
        "[a](vbscript:x)",
        "![a](javascript:alert(1))",
        "![a](https://example.org/pixel.png)",
        '[a](https://example.org "x\\" onmouseover=\\"alert(1)")',
        '```"><script>alert(1)</script>\nx\n```',
        "$\\href{javascript:alert(1)}{x}$",
        "$\\text{<script>alert(1)</script>}$",
        "\\(</math><script>alert(1)</script>\\)",
        "<style>*{display:none}</style>",
        '| <svg onload="alert(1)"> |\n|--|\n| <iframe src="//evil"> |',
    ],
)
def test_nothing_can_run_or_load(text: str) -> None:
    parts = Parts()
    parts.feed(html(text))
    assert not parts.names & {"script", "img", "style", "svg", "iframe", "object", "form"}
    assert not [name for name, _ in parts.attributes if name.startswith("on") or name in ("style", "src")]
    assert all(re.match("https?:|mailto:", value or "") for name, value in parts.attributes if name == "href")


def test_text_that_is_no_markdown_stays_whole() -> None:
    long = "x" * 20_000
    assert re.sub(r"<[^>]+>", "", html(f"<b>{long}</b>")).strip() == f"&lt;b&gt;{long}&lt;/b&gt;"


def test_characters_that_reorder_text_are_seen() -> None:
    assert html("a\u202eb") == "<p>a⟦U+202E⟧b</p>\n"


def test_a_formula_that_is_no_tex_stays_as_it_was_written() -> None:
    assert "<code>\\frac</code>" in html("$\\frac$")
    deep = "{" * 300 + "}" * 300
    assert f"<code>{deep}</code>" in html(f"${deep}$")


def test_rows_of_a_wide_table_are_filled_up_to_a_bound() -> None:
    wide = "|" + "a|" * 2000 + "\n|" + "-|" * 2000 + "\n"
    assert [block.html.count("<td>") for block in blocks(wide + "b\n" * 100)] == [4000, 0]
    assert [block.html.count("<td>") for block in blocks("|a|b|\n|-|-|\n" + "|1|2|\n" * 3000)] == [6000]
    assert [block.html.count("<td>") for block in blocks("|a|b|c|d|\n|-|-|-|-|\n1|2\n\nend")] == [4, 0]


def test_an_open_block_is_code_until_it_is_closed() -> None:
    assert html("```\nx = 1") == "<pre><code>x = 1</code></pre>\n"


def test_the_server_renders_it(fake_server: RunningServer) -> None:
    answer = post(fake_server, "/api/markdown", {"text": "# A\n\nb"})
    assert answer.json == {"blocks": [{"line": 0, "html": "<h1>A</h1>\n"}, {"line": 2, "html": "<p>b</p>\n"}]}
    assert post(fake_server, "/api/markdown", {}).json == {"blocks": []}
    refused = post(fake_server, "/api/markdown", {"text": "x" * (MAX_CHARACTERS + 1)})
    assert (refused.status, refused.error) == (
        400,
        f"the text has {MAX_CHARACTERS + 1} characters, and at most {MAX_CHARACTERS} are rendered at once",
    )


def test_browsers_get_the_page_and_programs_ollamas_text(fake_server: RunningServer) -> None:
    shown = ask(fake_server, "GET", "/", headers={"accept": "text/html,application/xhtml+xml"})
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in shown.headers["content-security-policy"]
    assert ask(fake_server, "GET", "/").body == b"Ollama is running"
    assert ask(fake_server, "HEAD", "/", headers={"accept": "text/html"}).status == 200
    address = re.findall(r'src="(/page/\w+/main.js)"', shown.body.decode())[0]
    script = ask(fake_server, "GET", address)
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "max-age=31536000, immutable"
    again = ask(fake_server, "GET", address, headers={"if-none-match": script.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert ask(fake_server, "GET", "/page/older/main.js").headers["cache-control"] == "no-cache"
    assert ask(fake_server, "GET", "/page/older/..%2Froutes.py").status == 404
    assert ask(fake_server, "GET", "/page/older/nothing.js").status == 404
