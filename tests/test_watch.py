"""`corral ps --watch`: its frames for windows of any size, and the command in a terminal, a pipe, and as servers go."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from corral.cli.display.text import text_width
from corral.cli.watch.frame import Look, block, frame
from corral.cli.watch.loop import ENTER, LEAVE
from corral.client.answers import Running
from corral.client.live import Live, Seen
from tests.commands import Shell, Terminal
from tests.fake_server import FakeServer, reply
from tests.http_servers import serving

NOW = datetime(2026, 11, 27, 12, 30, 5, tzinfo=UTC)
BUSY = Live(slots_busy=3, slots=16, pool_used=1536, pool=32768, waiting=2, read_rate=1234.5, written_rate=35.25)


def model(name: str, live: Live | None = BUSY, **changes: Any) -> Running:
    given = {"size": 209_000_000, "size_vram": 0, "context_length": 8192, "expires_at": NOW + timedelta(minutes=4)}
    return Running(name, "ab" * 32, live=live, **{**given, **changes})


def look(*models: Running) -> Look:
    return Look("127.0.0.1:11434", NOW, Seen(models, 8_300_000_000, 5_100_000_000))


def test_a_wide_window_gets_a_table() -> None:
    assert frame(look(model("smollm2:135m"), model("other", None)), 200, 24) == [
        "127.0.0.1:11434 at 12:30:05, 5.1 GB of 8.3 GB memory free",
        "",
        "NAME          SIZE    PROCESSOR  CONTEXT  SLOTS  KV POOL     QUEUE  READ/S  WRITTEN/S  UNTIL",
        "smollm2:135m  209 MB  100% CPU   8192     3/16   1536/32768  2      1234    35.2       4 minutes from now",
        "other         209 MB  100% CPU   8192     -      -           -      -       -          4 minutes from now",
    ]


def test_a_usual_window_gets_two_lines_below_each_name() -> None:
    assert frame(look(model("smollm2:135m")), 80, 24)[2:] == [
        "smollm2:135m",
        "  209 MB, 100% CPU, context 8192, slots 3/16, KV pool 1536/32768, queue 2,",
        "  reads 1234/s, writes 35.2/s, until 4 minutes from now",
    ]


def test_a_narrow_window_gets_as_many_as_it_takes() -> None:
    assert frame(look(model("smollm2:135m")), 40, 24) == [
        "127.0.0.1:11434 at 12:30:05,",
        "5.1 GB of 8.3 GB memory free",
        "",
        "smollm2:135m",
        "  209 MB, 100% CPU, context 8192,",
        "  slots 3/16, KV pool 1536/32768,",
        "  queue 2, reads 1234/s, writes 35.2/s,",
        "  until 4 minutes from now",
    ]


def test_of_another_servers_model_only_what_is_known_is_shown() -> None:
    far, unknown = (
        model(name, None, size=0, context_length=length, remote=True)
        for name, length in (("far", 4096), ("unknown", 0))
    )
    assert frame(look(far, unknown), 200, 24)[2:] == [
        "NAME     SIZE  PROCESSOR  CONTEXT  SLOTS  KV POOL  QUEUE  READ/S  WRITTEN/S  UNTIL",
        "far      -     remote     4096     -      -        -      -       -          4 minutes from now",
        "unknown  -     remote     -        -      -        -      -       -          4 minutes from now",
    ]
    assert frame(look(far, unknown), 60, 24)[2:] == ["far", "  remote, context 4096", "unknown", "  remote, context -"]


NAMES = ("smollm2:135m", "模型" * 20, "hf.co/some-owner/" + "a" * 80 + ":Q4_K_M", "bad\x1b[2Jname")


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 10, 50])
def test_no_frame_is_larger_than_its_window(width: int, height: int) -> None:
    seen = look(*(model(name) for name in NAMES))
    broken = Look("127.0.0.1:11434", NOW, None, "what answers is no server: " + "a" * 100)
    for one in (seen, broken, look()):
        lines = frame(one, width, height)
        assert len(lines) <= height
        assert all(text_width(line) <= width for line in lines)
        assert not any("\x1b" in line for line in lines)


def test_models_that_do_not_fit_are_counted() -> None:
    lines = frame(look(*(model(f"model{number}") for number in range(9))), 80, 10)
    assert [line for line in lines if line.startswith("model")] == ["model0", "model1"]
    assert lines[-1] == "and 7 more"
    table = frame(look(*(model(f"model{number}") for number in range(9))), 200, 10)
    assert table[-1] == "and 3 more"
    assert len(table) == 10
    assert len(frame(look(*(model(f"model{number}") for number in range(7))), 200, 10)) == 10


def test_a_model_that_is_loaded_says_how_far_it_is() -> None:
    loading = Live(loading=(52_000_000, 209_000_000), waiting=1)
    seen = Look("127.0.0.1:11434", NOW, Seen((model("big", loading),), 8_300_000_000, 5_100_000_000, 3))
    table = frame(seen, 200, 24)
    assert table[0].endswith("memory free, 3 waiting for a model")
    assert table[-1].endswith("loading 24%")
    assert frame(seen, 80, 24)[-1].endswith(", loading 24%")
    making = Live(loading=(0, 209_000_000), preparing=(1, 4))
    seen = Look("127.0.0.1:11434", NOW, Seen((model("big", making),), 8_300_000_000, 5_100_000_000))
    assert frame(seen, 80, 24)[-1].endswith(", preparing 25%")


def test_wide_letters_keep_the_columns() -> None:
    lines = frame(look(model("模型"), model("smollm2:135m")), 200, 24)
    assert lines[3].startswith("模型          209 MB  100% CPU")


def test_no_models_and_no_server() -> None:
    assert frame(look(), 80, 24)[1:] == ["no model is loaded", ""]
    away = Look("127.0.0.1:11434", NOW, None, "no server answers at 127.0.0.1:11434; waiting for one")
    assert frame(away, 80, 24) == [
        "127.0.0.1:11434 at 12:30:05",
        "no server answers at 127.0.0.1:11434; waiting for one",
        "",
    ]


def test_a_block_is_never_cut() -> None:
    name = "hf.co/some-owner/" + "a" * 80
    lines = block(look(*(model(f"{name}:{number}") for number in range(99))))
    assert (len(lines), lines[-1]) == (1 + 1 + 99 + 1, "")
    assert lines[2].startswith(f"{name}:0   209 MB")


def answer(*names: str) -> dict[str, Any]:
    live = {
        "slots": {"busy": 3, "total": 16},
        "pool": {"used": 1536, "total": 32768},
        "waiting": 2,
        "prompt_tokens_per_second": 1234.5,
        "generated_tokens_per_second": 35.25,
    }
    common = {"digest": "ab" * 32, "size": 209_000_000, "size_vram": 0, "context_length": 8192}
    models = [{"name": name, **common, "expires_at": "2318-12-03T14:08:14Z", "live": live} for name in names]
    return {"models": models, "memory": {"total": 8_300_000_000, "available": 5_100_000_000}}


ROUTE = "GET /api/ps?live=true"


def screens(shown: str) -> list[list[str]]:
    """The screens that were drawn, as lines; each is drawn whole."""
    drawn = re.findall(r"\x1b\[\?2026h\x1b\[H(.*?)\x1b\[J\x1b\[\?2026l", shown, re.DOTALL)
    return [screen.replace("\x1b[K", "").split("\r\n") for screen in drawn]


def ended(terminal: Terminal, status: int = 0) -> list[list[str]]:
    """What was drawn until the command ended, with its own screen left and nothing printed beside it."""
    outcome = terminal.finish()
    assert (outcome.status, outcome.stderr) == (status, "")
    assert terminal.shown.startswith(ENTER)
    # The kernel sends the signal of a Ctrl-C before it looks whether to show it: by then the terminal may be restored.
    assert terminal.shown.removesuffix("^C").endswith(LEAVE)
    return screens(terminal.shown)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_command_draws_over_what_it_drew_until_ctrl_c(tmp_path: Path, columns: int) -> None:
    with FakeServer({ROUTE: [reply(answer("one:latest")), reply(answer("one:latest", "two:latest"))]}) as server:
        terminal = Shell(tmp_path, server.host).terminal("ps", "--watch", columns=columns)
        terminal.wait_for("one:latest")
        terminal.wait_for("two:latest")
        terminal.wait_for("\x1b[?2026l")
        terminal.type("\x03")
        first, *_, last = ended(terminal)
    assert max(text_width(line) for line in last) <= columns
    assert not any(line.startswith("two") for line in first)
    assert sum(line.startswith(("one:latest", "two:latest")) for line in last) == 2
    text = " ".join(" ".join(last).split())
    assert "3/16" in text
    assert "1536/32768" in text
    assert "5.1 GB of 8.3 GB memory free" in text


def test_q_ends_it_and_a_prefix_narrows_it(tmp_path: Path) -> None:
    with FakeServer({ROUTE: reply(answer("one:latest", "two:latest"))}) as server:
        terminal = Shell(tmp_path, server.host).terminal("ps", "-w", "tw")
        terminal.wait_for("two:latest")
        terminal.type("xq")
        drawn = ended(terminal)
    assert not any("one:latest" in line for screen in drawn for line in screen)


def test_a_signal_to_end_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with FakeServer({ROUTE: reply(answer("one:latest"))}) as server:
        terminal = Shell(tmp_path, server.host).terminal("ps", "--watch")
        terminal.wait_for("one:latest")
        terminal.process.send_signal(signal.SIGTERM)
        ended(terminal, 143)


@contextmanager
def server_at(port: int) -> Iterator[int]:
    """A server that answers `ps` at this port, 0: at a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer("one:latest")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", port), Handler)) as server:
        yield server.server_port


def test_a_server_may_go_away_and_come_back(tmp_path: Path) -> None:
    with server_at(0) as port:
        terminal = Shell(tmp_path, f"127.0.0.1:{port}").terminal("ps", "--watch")
        terminal.wait_for("one:latest")
    terminal.wait_for(f"no server answers at 127.0.0.1:{port}; waiting for one")
    with server_at(port):
        terminal.wait_for("one:latest")
        terminal.wait_for("\x1b[?2026l")
        terminal.type("\x03")
        drawn = ended(terminal)
    states = [any("one:latest" in line for line in screen) for screen in drawn]
    assert [before for before, after in pairwise(states) if before != after] == [True, False]


def test_an_answer_that_is_none_is_said_and_tried_again(tmp_path: Path) -> None:
    wrong = [
        reply("<html>"),
        reply({"error": "the server is stopping"}, 503),
        reply({"models": [{"live": {"slots": 1}}]}),
        reply({"object": "list"}),
    ]
    with FakeServer({ROUTE: [*wrong, reply(answer("one:latest"))]}) as server:
        terminal = Shell(tmp_path, server.host).terminal("ps", "--watch", columns=200)
        terminal.wait_for("one:latest")
        terminal.type("\x03")
        drawn = ended(terminal)
    assert [screen[1] for screen in drawn[:4]] == [
        'the corral server\'s answer is no JSON: "<html>"; trying again',
        "the server is stopping; trying again",
        'the server\'s answer is not understood: unexpected value of "slots"; trying again',
        'the server\'s answer is not understood: it has no "models"; trying again',
    ]


def test_where_there_is_no_terminal_blocks_follow_each_other(tmp_path: Path) -> None:
    with FakeServer({ROUTE: reply(answer("one:latest"))}) as server:
        process = Shell(tmp_path, server.host).start("ps", "--watch")
        assert process.stdout
        assert process.stderr
        lines = [process.stdout.readline().decode() for _ in range(8)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
        process.stdout.close()
        process.stderr.close()
    assert lines[0].startswith(f"{server.host} at ")
    assert lines[1].startswith("NAME ")
    assert lines[2].startswith("one:latest ")
    assert lines[3] == "\n"
    assert lines[5:7] == lines[1:3]
    assert "\x1b" not in "".join(lines)


def test_a_dumb_terminal_gets_blocks_too(tmp_path: Path) -> None:
    with FakeServer({ROUTE: reply(answer("one:latest"))}) as server:
        terminal = Shell(tmp_path, server.host).terminal("ps", "--watch", variables={"TERM": "dumb"})
        terminal.wait_for("one:latest")
        terminal.wait_for("one:latest")
        terminal.type("\x03")
        outcome = terminal.finish()
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "\x1b" not in outcome.stdout
