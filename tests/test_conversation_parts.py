"""The parts of a conversation by themselves: what a typed text is, parameters, help, formatted Markdown."""

import re
import sys

import pytest

from corral.cli.chat import help_texts, keyboard, settings, typed
from corral.cli.chat.session import parameters_text
from corral.cli.display.markdown_blocks import lines_of, parser
from corral.messages import Json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hi", "Hi"),
        (" /bye", " /bye"),
        ("/usr/bin\nis a folder", "/usr/bin\nis a folder"),
        ('"""Hi"""', "Hi"),
        ('  """Hi""" ', "Hi"),
        ('"""/bye"""', "/bye"),
        ('""""""', ""),
        ('"""a\n  b\n"""', "a\n  b\n"),
        ('"""a\n"""b""" c\nd"""', 'a\n"""b""" c\nd'),
        ('say """Hi"""', 'say """Hi"""'),
    ],
)
def test_messages(text: str, message: str) -> None:
    assert typed.read(text) == typed.Typed(message, is_command=False)
    assert not typed.is_open(text)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/bye", "/bye"),
        ("/bye ", "/bye "),
        ("/nothing of the kind", "/nothing of the kind"),
        ('/set system """a\nb"""', "/set system a\nb"),
        ('/set system  """a"""', "/set system  a"),
        ("/set system a\nb", "/set system a\nb"),
        ('/set system say """a"""', '/set system say """a"""'),
    ],
)
def test_commands(text: str, command: str) -> None:
    assert typed.read(text) == typed.Typed(command, is_command=True)
    assert not typed.is_open(text)


@pytest.mark.parametrize(
    "text", ['"""', ' """', '"""a', '"""a\n', '"""a\n"""b', '""" "" ', '/set system """', '/set system """a\nb']
)
def test_blocks_that_are_not_closed_yet(text: str) -> None:
    assert typed.is_open(text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "42", 42),
        ("temperature", "0.5", 0.5),
        ("use_mmap", "false", False),
        ("stop", "a", ["a"]),
        ("stop", 'a "b c" "d\\"e"  f', ["a", "b c", 'd"e', "f"]),
        ("stop", '""', [""]),
        ("stop", '"<|end|>"', ["<|end|>"]),
    ],
)
def test_parameters(name: str, text: str, value: Json) -> None:
    assert settings.read(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("seed", "4 2", "invalid int value [4 2]"),
        ("temperature", "hot", "invalid float value [hot]"),
        ("use_mmap", "maybe", "invalid bool value [maybe]"),
        ("colour", "red", "unknown parameter 'colour'"),
        ("mirostat", "1", "parameter 'mirostat' has no effect any more"),
    ],
)
def test_wrong_parameters(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        settings.read(name, text)


def test_parameters_are_shown_as_they_are_typed() -> None:
    assert parameters_text({"temperature": 0.0, "use_mmap": False, "stop": ["a", "b"], "top_p": 0.9}) == (
        "  temperature                    0\n"
        "  use_mmap                       false\n"
        "  stop                           a, b\n"
        "  top_p                          0.9\n"
    )


@pytest.mark.parametrize("width", [30, 40, 80, 200])
@pytest.mark.parametrize("topic", ["", "set", "show", "parameters", "shortcuts"])
def test_help_is_as_wide_as_the_window(topic: str, width: int) -> None:
    page = help_texts.page(topic, width, sees_or_hears=False)
    assert max(map(len, page.splitlines())) <= max(width, 46)  # the longest entry and the sentence about blocks
    assert not any(line.endswith(" ") for line in page.splitlines())


def test_nothing_that_a_model_said_vanishes() -> None:
    text = "<div>html</div>\n\n[1]: http://a.b\n\n![pic](http://c.d) and <http://e.f> and [http://g.h](http://g.h)"
    shown = "\n".join(line.text for line in lines_of(parser().parse(text), 100, colours=False))
    shown = shown.replace("\x1b[4m", "").replace("\x1b[0m", "")
    assert shown == "<div>html</div>\n\n[1]: http://a.b\n\n!pic (http://c.d) and <http://e.f> and http://g.h"


def test_a_table_is_folded_where_it_is_too_wide() -> None:
    rows = ["|".join(["", *(f"c{number}" for number in range(12)), ""]), "|" + "--|" * 12]
    rows.append("|".join(["", *("天空是蓝色的" for _ in range(12)), ""]))
    lines = list(lines_of(parser().parse("\n".join(rows)), 60, colours=False))
    assert max(line.width for line in lines) <= 60
    assert sum(line.text.count("蓝") for line in lines) == 12


@pytest.mark.parametrize("width", [1, 20, 39])
@pytest.mark.parametrize(
    "text",
    [
        "> " * 200 + "deep",
        "- " * 200 + "deep",
        "#" * 7 + " no heading",
        "|" * 500,
        "```no-such-language\ncode",
        "```\n" + "\t" * 50,
        "[" * 300 + "](x)",
        "*" * 999,
        "999999999. x",
        "&#13;&#27;&#155;\x1b[2J\x00",
        "",
        "\n\n \n",
    ],
)
def test_strange_texts_are_formatted_without_control_characters(text: str, width: int) -> None:
    for line in lines_of(parser().parse(text), width, colours=False):
        assert re.sub(r"\x1b\[[0-9;]*m", "", line.text).isprintable()
        assert line.width <= max(width, 20)


def test_without_termios_the_keyboard_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "termios", None)  # as on Windows
    monkeypatch.delitem(sys.modules, "corral.system.posix_keyboard", raising=False)
    with keyboard.quiet() as keys:
        keys.mark_pastes()
    assert not keyboard.is_posix()
    assert "corral.system.posix_keyboard" not in sys.modules
