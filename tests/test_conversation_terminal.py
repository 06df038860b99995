"""The conversation at the prompt in a real terminal, as its user sees it: narrow, usual and wide windows."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.commands import CORRAL, Shell
from tests.fake_server import Answer, FakeServer, lines, reply
from tests.tmux import Tmux

HINT = ">>> Send a message (/? for help)"
SHOWN = reply({"capabilities": ["completion"], "details": {"family": "llama"}})
LOADED = reply({"response": "", "done": True, "done_reason": "load"})
WIDTHS = pytest.mark.parametrize("columns", [40, 80, 200])

Talk = Callable[..., tuple[FakeServer, Tmux]]


def said(*pieces: str, end: str = "whole") -> Answer:
    chunks = [{"message": {"content": piece}, "done": False} for piece in pieces]
    last = {"message": {"content": ""}, "done": True, "eval_count": 7, "eval_duration": 1_000_000_000}
    return lines(*chunks, *([last] if end == "whole" else []), end=end)


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    """Starts a conversation in a window; the model's answers are given."""
    with ExitStack() as stack:

        def start(
            *answers: Answer, columns: int = 80, rows: int = 24, flags: Sequence[str] = (), **variables: str
        ) -> tuple[FakeServer, Tmux]:
            routes: dict[str, Answer | Sequence[Answer]] = {
                "POST /api/show": SHOWN,
                "POST /api/generate": LOADED,
                "POST /api/create": lines({"status": "success"}),
            }
            server = stack.enter_context(FakeServer({**routes, "POST /api/chat": answers or [said("Aye")]}))
            environment = Shell(tmp_path, server.host).environment(**variables)
            window = Tmux([str(CORRAL), "run", "m", *flags], environment, columns=columns, rows=rows)
            stack.enter_context(window)
            window.wait_for(HINT)
            return server, window

        yield start


def chats(server: FakeServer) -> list[Any]:
    """The messages of each question that the server was asked, the last one's text alone."""
    return [body["messages"] for route, body in server.requests() if route == "POST /api/chat"]


def ask(window: Tmux, text: str) -> None:
    window.write(text)
    window.press("Enter")


def leave(window: Tmux) -> None:
    window.press("C-d")
    window.wait_for_end("ended with 0")


@WIDTHS
def test_every_page_of_help_fits_the_window(talk: Talk, columns: int) -> None:
    _, window = talk(columns=columns, rows=60)
    for command, entry in (
        ("/?", "/save <model>"),
        ("/? set", "/set nomarkdown"),
        ("/show", "/show modelfile"),
        ("/set parameter", "/set parameter stop <string> ..."),
        ("/? shortcuts", "Ctrl + g"),
    ):
        window.press("C-l")
        window.wait_until(lambda screen: screen == HINT, "a clear screen")
        ask(window, command)
        screen = window.wait_for_end(f"\n\n{HINT}")
        assert screen.startswith(f">>> {command}\nAvailable ")
        assert entry in screen
        assert screen == window.scrollback[-len(screen) :], "no line was broken by the terminal"
    leave(window)


def test_settings_answer_and_go_with_the_next_question(talk: Talk) -> None:
    server, window = talk(said("Arr"))
    for command, answer in (
        ("/set parameter temperature 0", "Set parameter 'temperature' to '0'"),
        ('/set parameter stop "a b" c', "Set parameter 'stop' to 'a b, c'"),
        ("/set parameter top_k many", 'Couldn\'t set parameter: "invalid int value [many]"'),
        ("/set parameter colour 1", "Couldn't set parameter: \"unknown parameter 'colour'\""),
        ("/set system You are a  pirate.", "Set system message."),
        ("/set format json", "Set format to 'json' mode."),
        ("/set format xml", "Invalid or missing format. For 'json' mode use '/set format json'"),
        ("/set think low", "Set 'think' mode to 'low'.\nwarning: model \"m\" does not support thinking output"),
        ("/set think hard", 'Couldn\'t set think: "hard" (must be high, medium, low, max, or none)'),
        ("/set verbose", "Set 'verbose' mode."),
        ("/set volume 11", "Unknown command '/set volume'. Type /? for help"),
        ("/show colour", "Unknown command '/show colour'. Type /? for help"),
        ("/load", "Usage:\n  /load <modelname>"),
        ("/save a b", "Usage:\n  /save <modelname>"),
        ("/save -x", "error: The model name '-x' is invalid"),
        ("/show license", "No license was specified for this model."),
        ("/show template", "No prompt template was specified for this model."),
        ("/show system", "You are a  pirate.\n"),
    ):
        window.press("C-l")
        window.wait_until(lambda screen: screen == HINT, "a clear screen")
        ask(window, command)
        assert window.wait_for_end(f"\n{HINT}") == f">>> {command}\n{answer}\n{HINT}"
    ask(window, "Hi")
    window.wait_for("Arr\n\neval count:           7 token(s)\neval duration:        1s\n")
    window.wait_for_end(HINT)
    leave(window)
    asked = [body for route, body in server.requests() if route == "POST /api/chat"]
    assert asked == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "You are a  pirate."},
                {"role": "user", "content": "Hi"},
            ],
            "options": {"temperature": 0.0, "stop": ["a b", "c"]},
            "format": "json",
            "think": "low",
            "progress": True,
        }
    ]


def test_parameters_that_were_set_are_shown_below_the_models_own(talk: Talk) -> None:
    _, window = talk()
    ask(window, "/set parameter temperature 0.5")
    window.wait_for("Set parameter")
    ask(window, "/show parameters")
    window.wait_for(
        "Model defined parameters:\n  No additional parameters were specified for this model.\n\n"
        f"User defined parameters:\n  temperature                    0.5\n\n{HINT}"
    )
    leave(window)


def test_a_conversation_is_saved_with_all_that_makes_it(talk: Talk) -> None:
    server, window = talk(said("Hello"))
    for line, answer in (
        ("/set system Be kind", "Set system message."),
        ("/set parameter num_ctx 512", "'512'"),
        ("Hi", "Hello\n\n"),
        ("/save mine", "Created new model 'mine'"),
        ("/load mine", "Loading model 'mine'"),
    ):
        ask(window, line)
        window.wait_for(answer)
        window.wait_for_end(HINT)
    leave(window)
    requests = server.requests()
    assert ("POST /api/create") in [route for route, _ in requests]
    assert [body for route, body in requests if route == "POST /api/create"] == [
        {
            "model": "mine",
            "from": "m",
            "system": "Be kind",
            "parameters": {"num_ctx": 512},
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        }
    ]
    loaded = [body["model"] for route, body in requests if route == "POST /api/generate"]
    assert loaded == ["m", "mine"]


@WIDTHS
def test_what_is_typed_while_an_answer_comes_waits_for_the_next_prompt(talk: Talk, columns: int) -> None:
    server, window = talk(said("The answer ", "goes on ", end="held"), said("Aye"), columns=columns)
    ask(window, "Hi")
    window.wait_for("goes on")
    ask(window, "next")
    window.paste("two\nlines")
    assert "next" not in window.screen
    assert " -echo " in window.modes
    window.press("C-c")
    assert server.wait_for("hangup")
    window.wait_for_end(">>> next\n... two\n... lines")
    assert window.screen.startswith(">>> Hi\nThe answer goes on\n\n>>> next")
    window.press("Enter")
    window.wait_for_end(f"Aye\n\n{HINT}")
    leave(window)
    assert " echo " in window.modes
    assert chats(server)[-1] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "The answer goes on "},
        {"role": "user", "content": "next\ntwo\nlines"},
    ]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("busy", [True, False], ids=["while an answer comes", "at the prompt"])
def test_the_terminal_is_given_back_when_the_command_is_ended(talk: Talk, ending: signal.Signals, busy: bool) -> None:
    _, window = talk(said("For ever ", "and ", end="held"))
    before = window.shell_modes
    if busy:
        ask(window, "Hi")
        window.wait_for("and")
    assert window.modes != before
    window.send(ending)
    window.wait_for(f"ended with {128 + ending}")
    assert window.modes == before


def test_ctrl_z_stops_the_command_and_the_terminal_is_quiet_again_afterwards(talk: Talk) -> None:
    _, window = talk(said("For ever ", "and ", end="held"))
    before = window.shell_modes
    ask(window, "Hi")
    window.wait_for("and")
    quiet = window.modes
    window.press("C-z")
    window.wait_for_end("stopped")
    assert window.modes == before
    window.press("Enter")
    window.wait_for_modes(quiet)
    window.press("C-c")
    window.wait_for_end(HINT)
    leave(window)


def test_an_error_gives_the_terminal_back(talk: Talk) -> None:
    _, window = talk(said("Hel", end="cut"))
    before = window.shell_modes
    ask(window, "Hi")
    window.wait_for("Hel\nError: the corral server broke off its answer\nended with 1")
    assert window.modes == before


def test_a_block_is_one_message_that_can_be_edited_until_it_is_closed(talk: Talk) -> None:
    server, window = talk(said("Aye"))
    window.write('"""one')
    window.press("Enter")
    window.wait_for_end('>>> """one\n... End with """ to send')
    window.write("/bye")
    window.press("Enter", "Enter", "Up", "Up")
    window.write("X")
    window.press("Down", "Down")
    window.write('four""" ')
    window.press("Enter")
    window.wait_for_end(f"Aye\n\n{HINT}")
    leave(window)
    assert chats(server) == [[{"role": "user", "content": "one\nX/bye\n\nfour"}]]


def test_a_system_message_of_several_lines(talk: Talk) -> None:
    server, window = talk(said("Aye"))
    ask(window, '/set system """Be')
    window.wait_for_end('End with """ to send')
    ask(window, 'kind"""')
    window.wait_for("Set system message.")
    ask(window, "Hi")
    window.wait_for_end(f"Aye\n\n{HINT}")
    leave(window)
    assert chats(server)[0][0] == {"role": "system", "content": "Be\nkind"}


@WIDTHS
def test_pasted_lines_are_one_message_even_when_they_look_like_commands(talk: Talk, columns: int) -> None:
    server, window = talk(said("Aye"), columns=columns)
    window.paste("/bye\n天空 \u2068是\u2069蓝色的\n/exit")
    window.wait_for_end("... /exit")
    window.press("Enter")
    window.wait_for_end(f"Aye\n\n{HINT}")
    leave(window)
    assert chats(server) == [[{"role": "user", "content": "/bye\n天空 \u2068是\u2069蓝色的\n/exit"}]]


def test_the_keys_of_the_line_editor(talk: Talk) -> None:
    _, window = talk()
    for keys, line in (
        (["M-b", "X"], "one two Xthree"),
        (["C-a", "M-f", "X"], "oneX two three"),
        (["C-e", "C-b", "C-b", "C-f", "X"], "one two threXe"),
        (["C-a", "Right", "Left", "X"], "Xone two three"),
        (["M-b", "C-k", "X"], "one two X"),
        (["M-b", "C-u", "X"], "Xthree"),
        (["C-w", "X"], "one two X"),
        (["M-BSpace", "X"], "one two X"),
        (["BSpace", "C-h", "X"], "one two thrX"),
        (["Home", "DC", "C-d", "X"], "Xe two three"),
        (["Home", "End", "X"], "one two threeX"),
        (["Tab", "X"], "one two three        X"),
        (["C-j", "X"], "one two three\n... X"),
    ):
        window.write("one two three")
        window.press(*keys)
        window.wait_for_end(f">>> {line}")
        window.press("C-c")
        window.wait_for_end(HINT)
        window.press("C-l")
        window.wait_until(lambda screen: screen == HINT, "a clear screen")
    window.press("C-c")
    window.wait_for_end(f">>>\n\nUse Ctrl + d or /bye to exit.\n{HINT}")
    leave(window)


def test_the_history_is_found_again_and_not_kept_where_that_is_not_wanted(talk: Talk, tmp_path: Path) -> None:
    file = tmp_path / ".ollama" / "history"
    file.parent.mkdir()
    file.write_text("".join(f"line {number}\n" for number in range(100)))
    _, window = talk()
    window.press("Up", "C-p")
    window.wait_for_end(">>> line 98")
    window.press("C-n", "Down")
    window.wait_for_end(HINT)
    ask(window, "first")
    window.wait_for_end(f"Aye\n\n{HINT}")
    ask(window, "/set nohistory")
    window.wait_for_end(f"/set nohistory\n{HINT}")
    ask(window, "secret")
    window.wait_for_end(f"Aye\n\n{HINT}")
    window.press("Up")
    window.wait_for_end(">>> secret")
    window.press("C-c")
    window.wait_for_end(HINT)
    leave(window)
    assert file.read_text().splitlines() == [*(f"line {number}" for number in range(2, 100)), "first", "/set nohistory"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_editor_writes_the_message(talk: Talk, tmp_path: Path) -> None:
    editor = tmp_path / "my editor"
    editor.write_text('#!/bin/sh\ncat "$2" > seen\nprintf "%s\\nby %s\\n\\n" "$(cat "$2")" "$1" > "$2"\n')
    editor.chmod(0o700)
    server, window = talk(said("Aye"), VISUAL=f"'{editor}' Ann", EDITOR="false")
    window.write("Written")
    window.press("C-g")
    window.wait_for_end(">>> Written\n... by Ann")
    window.press("Enter")
    window.wait_for_end(f"Aye\n\n{HINT}")
    leave(window)
    assert chats(server) == [[{"role": "user", "content": "Written\nby Ann"}]]


def test_an_editor_that_is_not_there_or_fails_leaves_the_message(talk: Talk) -> None:
    _, window = talk(OLLAMA_EDITOR="no-such-editor", VISUAL="true")
    window.write("Hi")
    window.press("C-g")
    window.wait_for('error: editor "no-such-editor" not found, set OLLAMA_EDITOR to the path of your\npreferred editor')
    window.wait_for_end(">>> Hi")
    window.press("C-c")
    window.wait_for_end(HINT)
    leave(window)


def test_what_a_model_says_cannot_steer_the_terminal(talk: Talk) -> None:
    hostile = "a\x1b]52;c;AA\x07b\x1b[2J\x9b2J\r\x00c"
    _, window = talk(said(hostile), said(f"**{hostile}** &#13;x&#27;[2Jy `\x1b[2J`\n\n```py\n\x1b[2J\n```"))
    ask(window, "one")
    window.wait_for_end(f">>> one\na]52;c;AAb[2J2Jc\n\n{HINT}")
    ask(window, "/set markdown")
    window.wait_for_end(f"Set 'markdown' mode.\n{HINT}")
    ask(window, "two")
    screen = window.wait_for_end(f"────\n\n{HINT}")
    assert "a]52;c;AAb[2J2Jc x�[2Jy [2J\n\n── py ─" in screen
    leave(window)


def test_a_long_wait_says_what_happens_and_leaves_no_trace(talk: Talk) -> None:
    stages = [{"stage": "queued", "ahead": 2}, {"stage": "loading", "completed": 1, "total": 2}]
    stages.append({"stage": "reading", "completed": 1000, "total": 4000})
    progress = [{"message": {"content": ""}, "done": False, "progress": stage} for stage in stages]
    thinking = [{"message": {"content": "", "thinking": "Hm"}, "done": False}]
    answers = [lines(*progress[:1], end="held"), lines(*progress[:2], end="held"), lines(*progress, end="held")]
    answers += [lines(*progress, *thinking, end="held"), said("Aye")]
    _, window = talk(*answers, flags=["--hidethinking"])
    for number, shown in enumerate(
        [
            "waiting behind 2 other requests",
            "loading the model 50%",
            "reading the prompt 25% of 4000 tokens",
            "thinking",
        ]
    ):
        ask(window, f"question {number}")
        window.wait_for(f">>> question {number}\n{shown}")
        window.press("C-c")
        window.wait_for_end(f">>> question {number}\n\n\n{HINT}")
    ask(window, "last")
    window.wait_for_end(f">>> last\nAye\n\n{HINT}")
    leave(window)


def test_a_terminal_that_only_takes_lines_gets_no_codes(tmp_path: Path) -> None:
    routes = {"POST /api/show": SHOWN, "POST /api/generate": LOADED, "POST /api/chat": said("**Aye** ", "# x\n")}
    with FakeServer(routes) as server:
        terminal = Shell(tmp_path, server.host).terminal("run", "m", "--markdown", variables={"TERM": "dumb"})
        terminal.wait_for(">>> ")
        terminal.type("Hi\r")
        terminal.wait_for("**Aye** # x")
        terminal.wait_for(">>> ")
        terminal.type("/bye\r")
        outcome = terminal.finish()
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "\x1b" not in outcome.stdout


MARKDOWN = """# Überschrift

Some *emphasis*, **strong** and `code`.
Second line, [a link](https://example.org/a) <b>html</b>.

- one
- two
  - nested

7. seven
8. eight

```python
def f(x: int) -> str:
    return "a" * x
```

| 名前 | Wert | description |
|---|--:|:--|
| 天空是蓝色的 | 12 | a longer text that must be wrapped |
| x | 3.5 | Donaudampfschifffahrtsgesellschaft |

> quoted

The end."""
HEAD = """Überschrift

Some emphasis, strong and code.
"""
BODY = """
 • one
 • two
    • nested

 7. seven
 8. eight

── python ──────────────
def f(x: int) -> str:
    return "a" * x
────────────────────────

"""
NARROW = """Second line, a link
(https://example.org/a) <b>html</b>.
"""
WIDE = """Second line, a link (https://example.org/a) <b>html</b>.
"""
NARROW_TABLE = """名前           Wert   description
───────────────────────────────────────
天空是蓝色的     12   a longer text
                      that must be
                      wrapped
x               3.5   Donaudampfschifff
                      ahrtsgesellschaft
"""
WIDE_TABLE = """名前           Wert   description
────────────────────────────────────────────────────────
天空是蓝色的     12   a longer text that must be wrapped
x               3.5   Donaudampfschifffahrtsgesellschaft
"""
TAIL = """
▌ quoted

The end.

"""


@WIDTHS
@pytest.mark.parametrize("rows", [10, 60])
def test_markdown_is_formatted_once_whatever_the_window(talk: Talk, columns: int, rows: int) -> None:
    pieces = [MARKDOWN[start : start + 3] for start in range(0, len(MARKDOWN), 3)]
    _, window = talk(said(*pieces), columns=columns, rows=rows, flags=["--markdown"])
    ask(window, "Hi")
    window.wait_for_end(f"The end.\n\n{HINT}")
    text = HEAD + (NARROW if columns == 40 else WIDE) + BODY + (NARROW_TABLE if columns == 40 else WIDE_TABLE) + TAIL
    shown = window.scrollback
    assert shown[shown.rindex(">>> Hi") :] == f">>> Hi\n{text}{HINT}"
    assert shown.count("Überschrift") == 1
    leave(window)


def test_markdown_in_colours_and_without(talk: Talk) -> None:
    answer = said("**strong** `code`\n\n```python\nreturn 1  # one\n```\n")
    _, window = talk(answer, flags=["--markdown"])
    ask(window, "Hi")
    window.wait_for_end(f"────\n\n{HINT}")
    assert "\x1b[1mstrong\x1b[0m\x1b[39m\x1b[49m \x1b[36mcode" in window.coloured
    leave(window)
    _, window = talk(answer, flags=["--markdown"], NO_COLOR="1")
    ask(window, "Hi")
    window.wait_for_end(f"────\n\n{HINT}")
    assert "\x1b[1mstrong\x1b[0m" in window.coloured
    assert "\x1b[36m" not in window.coloured
    leave(window)


def test_one_answer_is_formatted_too_and_what_is_typed_meanwhile_is_the_shells(tmp_path: Path) -> None:
    chunks = [{"response": piece, "done": False} for piece in ("# Head\n\n- o", "ne ", "**two**")]
    routes = {"POST /api/show": SHOWN, "POST /api/generate": lines(*chunks, end="held")}
    with FakeServer(routes) as server:
        command = [str(CORRAL), "run", "m", "--markdown", "Hi"]
        with Tmux(command, Shell(tmp_path, server.host).environment()) as window:
            window.wait_for_end("Head\n\n • one two")
            window.write("typed")
            assert " -echo " in window.modes
            window.press("C-c")
            window.wait_for_end("ended with 0")
            assert window.screen.startswith("Head\n\n • one two")
            assert window.modes == window.shell_modes


def test_an_open_block_is_shown_as_it_comes_and_kept_when_it_is_stopped(talk: Talk) -> None:
    _, window = talk(said("# Head\n\n- on", "e\n- tw", end="held"), flags=["--markdown"])
    ask(window, "Hi")
    window.wait_for_end(">>> Hi\nHead\n\n • one\n • tw")
    window.press("C-c")
    window.wait_for_end(f">>> Hi\nHead\n\n • one\n • tw\n\n{HINT}")
    leave(window)


def test_a_block_taller_than_the_window_shows_its_end_and_in_the_end_all(talk: Talk) -> None:
    items = [f"- item {number}\n" for number in range(30)]
    _, window = talk(said(*items, end="held"), rows=10, flags=["--markdown"])
    ask(window, "Hi")
    window.wait_for_end(" • item 28\n • item 29")
    window.press("C-c")
    window.wait_for_end(f" • item 29\n\n{HINT}")
    shown = window.scrollback.splitlines()
    assert [line for line in shown if "item" in line] == [f" • item {number}" for number in range(30)]
    leave(window)
