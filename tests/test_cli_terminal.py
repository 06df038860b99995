"""The command in a terminal: wrapped answers, thinking in grey, Ctrl-C, and the conversation at the prompt."""

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.commands import Outcome, Shell, Terminal
from tests.fake_server import Answer, FakeServer, lines, reply

Serve = Callable[[Mapping[str, Answer | Sequence[Answer]]], tuple[FakeServer, Shell]]

SHOWN = reply({"capabilities": ["completion"], "details": {"family": "llama"}})
LOADED = reply({"response": "", "done": True, "done_reason": "load"})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(routes: Mapping[str, Answer | Sequence[Answer]]) -> tuple[FakeServer, Shell]:
            server = stack.enter_context(FakeServer({"POST /api/show": SHOWN, **routes}))
            return server, Shell(tmp_path, server.host)

        yield start


def said(*pieces: str, end: str = "whole") -> Answer:
    chunks = [{"response": piece, "message": {"content": piece}, "done": False} for piece in pieces]
    return lines(*chunks, *([{"response": "", "done": True}] if end == "whole" else []), end=end)


def test_an_answer_is_wrapped_at_the_width_of_the_window(serve: Serve) -> None:
    _, shell = serve(
        {"POST /api/generate": said("The sky is", " blue because of ray", "leigh scatter", "ing. 天空是蓝色的")}
    )
    assert shell.terminal("run", "m", "Why?", columns=30).finish() == Outcome(
        0, "The sky is blue because\nof rayleigh scattering.\n天空是蓝色的\n\n", ""
    )
    assert shell.terminal("run", "m", "Why?", "--nowordwrap", columns=30).finish() == Outcome(
        0, "The sky is blue because of rayleigh scattering. 天空是蓝色的\n\n", ""
    )


def test_thinking_is_grey(serve: Serve) -> None:
    thought = [{"response": "", "thinking": "Hm", "done": False}, {"response": "Yes", "done": False}]
    _, shell = serve({"POST /api/generate": lines(*thought, {"response": "", "done": True})})
    grey, bold, plain = "\x1b[38;5;245m", "\x1b[38;5;245m\x1b[1m", "\x1b[0m"
    assert shell.terminal("run", "m", "Why?").finish() == Outcome(
        0, f"{bold}Thinking...{plain}\n{grey}Hm{plain}\n{bold}...done thinking.{plain}\n\nYes\n\n", ""
    )


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_thinking_is_not_grey_where_there_are_no_colours(serve: Serve, variables: dict[str, str]) -> None:
    thought = [{"response": "", "thinking": "Hm", "done": False}, {"response": "Yes", "done": False}]
    _, shell = serve({"POST /api/generate": lines(*thought, {"response": "", "done": True})})
    assert shell.terminal("run", "m", "Why?", variables=variables).finish() == Outcome(
        0, "Thinking...\nHm\n...done thinking.\n\nYes\n\n", ""
    )


def test_control_characters_that_a_model_says_do_not_reach_the_terminal(serve: Serve) -> None:
    _, shell = serve({"POST /api/generate": said("a\x1b]52;c;AA", "AA\x07b\x9b2J\r\tc")})
    assert shell.terminal("run", "m", "Why?").finish() == Outcome(0, "a]52;c;AAAAb2J\tc\n\n", "")


def test_an_error_stands_on_a_line_of_its_own(serve: Serve) -> None:
    _, shell = serve({"POST /api/generate": [said("The sky", end="cut"), said("The sky\n", end="cut")]})
    expected = Outcome(1, "The sky\n", "Error: the corral server broke off its answer\n")
    assert [shell.terminal("run", "m", "Why?").finish() for _ in range(2)] == [expected, expected]


def test_ctrl_c_stops_an_answer_quietly(serve: Serve) -> None:
    server, shell = serve({"POST /api/generate": said("The sky ", "is ", "ye", end="held")})
    terminal = shell.terminal("run", "m", "Why?")
    terminal.wait_for("The sky")
    terminal.type("\x03")
    assert server.wait_for("hangup")
    outcome = terminal.finish()
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith("The sky")
    assert "ye" not in outcome.stdout


def test_ctrl_c_while_the_command_itself_is_loading_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'corral.cli.program':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
    )
    assert Shell(tmp_path).run("list", PYTHONPATH=str(tmp_path)) == Outcome(130, "", "")


def test_ctrl_c_during_a_pull_ends_it_quietly(serve: Serve) -> None:
    server, shell = serve({"POST /api/pull": lines({"status": "pulling manifest"}, end="held")})
    process = shell.start("pull", "m")
    assert process.stderr
    assert process.stdout
    assert process.stderr.readline() == b"pulling manifest\n"
    process.send_signal(signal.SIGINT)
    assert server.wait_for("hangup")
    assert process.stderr.read() == b""
    process.stderr.close()
    process.stdout.close()
    assert process.wait() == 130


def converse(shell: Shell, *arguments: str, **variables: str) -> Terminal:
    terminal = shell.terminal("run", "m", *arguments, variables=variables)
    terminal.wait_for("Send a message")
    return terminal


def plain(text: str) -> str:
    """A terminal's output without the codes that a line editor steers it with."""
    return re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])", "", text)


def test_a_conversation_sends_all_that_was_said(serve: Serve) -> None:
    answers = [said("Hello", " Ann"), said("Your name is Ann")]
    server, shell = serve({"POST /api/generate": LOADED, "POST /api/chat": answers})
    terminal = converse(shell, "--keepalive", "5m")
    terminal.type("I am Ann\r")
    terminal.wait_for("Hello Ann")
    terminal.wait_for("Send a message")
    terminal.type('"""Who\r')
    terminal.wait_for("... ")
    terminal.type('am I?"""\r')
    terminal.wait_for("Your name is Ann")
    terminal.wait_for("Send a message")
    terminal.type("/bye\r")
    assert terminal.finish().status == 0
    asked = [body for route, body in server.requests() if route == "POST /api/chat"]
    first = {"role": "user", "content": "I am Ann"}
    assert [body["messages"] for body in asked] == [
        [first],
        [first, {"role": "assistant", "content": "Hello Ann"}, {"role": "user", "content": "Who\nam I?"}],
    ]
    assert [body["keep_alive"] for body in asked] == [300, 300]
    history = shell.home / ".ollama" / "history"
    assert history.read_text() == 'I am Ann\n"""Who\nam I?"""\n/bye\n'
    assert history.stat().st_mode & 0o777 == 0o600


def test_clear_forgets_and_unknown_commands_are_named(serve: Serve) -> None:
    server, shell = serve({"POST /api/generate": LOADED, "POST /api/chat": said("Aye")})
    terminal = converse(shell)
    for typed, shown in (("one", "Aye"), ("/clear", "Cleared session context"), ("two", "Aye")):
        terminal.type(f"{typed}\r")
        terminal.wait_for(shown)
        terminal.wait_for("Send a message")
    terminal.type("/foo bar\r")
    terminal.wait_for("Unknown command '/foo'. Type /? for help")
    terminal.wait_for("Send a message")
    terminal.type("\x04")
    assert terminal.finish().status == 0
    asked = [body["messages"] for route, body in server.requests() if route == "POST /api/chat"]
    assert asked == [[{"role": "user", "content": "one"}], [{"role": "user", "content": "two"}]]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(serve: Serve) -> None:
    answers = [said("Never ", "ends ", end="held"), said("Aye")]
    server, shell = serve({"POST /api/generate": LOADED, "POST /api/chat": answers})
    terminal = converse(shell)
    terminal.type("one\r")
    terminal.wait_for("Never ends")
    terminal.type("\x03")
    assert server.wait_for("hangup")
    terminal.wait_for("Send a message")
    terminal.type("\x03")
    terminal.wait_for("Use Ctrl + d or /bye to exit.")
    terminal.wait_for("Send a message")
    terminal.type("two\r")
    terminal.wait_for("Aye")
    terminal.wait_for("Send a message")
    terminal.type("/bye\r")
    assert terminal.finish().status == 0
    asked = [body["messages"] for route, body in server.requests() if route == "POST /api/chat"]
    one = {"role": "user", "content": "one"}
    assert asked == [
        [one],
        [one, {"role": "assistant", "content": "Never ends "}, {"role": "user", "content": "two"}],
    ]


def test_what_begins_with_the_path_of_a_picture_is_no_command(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shown = reply({"capabilities": ["completion", "vision"]})
    server, shell = serve({"POST /api/show": shown, "POST /api/generate": LOADED, "POST /api/chat": said("A cat")})
    terminal = converse(shell)
    terminal.type(f"{tmp_path}/a\\ cat.png 是什么\r")
    terminal.wait_for("A cat")
    terminal.wait_for("Send a message")
    terminal.type("/" + "a" * 300 + ".png\r")
    terminal.wait_for("Unknown command '/aaa")
    terminal.wait_for("Send a message")
    terminal.type("\x04")
    outcome = terminal.finish()
    assert (outcome.status, outcome.stderr) == (0, f"Added image '{tmp_path}/a cat.png'\n")
    asked = [body["messages"] for route, body in server.requests() if route == "POST /api/chat"]
    assert asked == [[{"role": "user", "content": "是什么", "images": ["iVBORw0KGgo="]}]]


def test_help_and_the_messages_a_model_begins_with(serve: Serve) -> None:
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    shown = reply({"capabilities": ["completion"], "messages": begun})
    _, shell = serve({"POST /api/show": shown, "POST /api/generate": LOADED})
    terminal = converse(shell, OLLAMA_NOHISTORY="1")
    assert ">>> Hi\r\nHo\r\n\r\n" in plain(terminal.shown)
    terminal.type("/?\r")
    terminal.wait_for("Send a message")
    terminal.type("/bye\r")
    outcome = terminal.finish()
    assert outcome.status == 0
    assert "Available Commands:\n  /set " in outcome.stderr
    assert not (shell.home / ".ollama" / "history").exists()


def test_a_server_that_goes_away_ends_the_conversation_with_a_sentence(serve: Serve) -> None:
    _, shell = serve({"POST /api/generate": LOADED, "POST /api/chat": said("Hel", end="cut")})
    terminal = converse(shell)
    terminal.type("one\r")
    outcome = terminal.finish()
    assert outcome.status == 1
    assert "Error: the corral server broke off its answer\n" in outcome.stderr


def test_a_bar_is_drawn_in_place(serve: Serve) -> None:
    step = {"status": "pulling 6e4c38e1172f", "digest": "sha256:6e4c38e1172f", "total": 1000, "completed": 1000}
    _, shell = serve({"POST /api/pull": lines({"status": "pulling manifest"}, step, {"status": "success"})})
    master, slave = os.openpty()
    try:
        status = shell.run_to("pull", "m", stderr=slave)
    finally:
        os.close(slave)
    drawn = ""
    while "success " not in drawn or not drawn.endswith("\n"):
        drawn += os.read(master, 65536).decode()
    os.close(master)
    assert status == 0
    last = drawn.rsplit("\x1b[1G", 1)[1].replace("\r\n", "\n")
    assert last == (
        "pulling manifest \x1b[K\n"
        f"pulling 6e4c38e1172f: 100% ▕{'█' * 18}▏   1 KB{'':25}\x1b[K\n"
        "success \x1b[K\x1b[?25h\x1b[?2026l\n"
    )


def test_a_terminal_that_only_takes_lines_gets_lines(serve: Serve) -> None:
    step = {"status": "pulling 6e4c38e1172f", "digest": "sha256:6e4c", "total": 1000, "completed": 1000}
    _, shell = serve({"POST /api/pull": lines({"status": "pulling manifest"}, step, {"status": "success"})})
    master, slave = os.openpty()
    assert shell.run_to("pull", "m", stderr=slave, TERM="dumb") == 0
    assert os.read(master, 65536) == b"pulling manifest\r\npulling 6e4c38e1172f: 100% 1 KB\r\nsuccess\r\n"
    os.close(slave)
    os.close(master)
