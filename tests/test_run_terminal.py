"""`run` with a prompt and the bars of `pull` in a real terminal: narrow, usual, wide, resized."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from corral.cli.display.wrap import MARGIN
from tests.commands import CORRAL, Shell
from tests.fake_server import Answer, FakeServer, lines, reply
from tests.tmux import Tmux

SHOWN = reply({"capabilities": ["completion"], "details": {"family": "llama"}})
WIDTHS = pytest.mark.parametrize("columns", [40, 80, 200])
CHINESE = "家在北京，我们喜欢吃苹果、香蕉和橙子。然后「去学校」！" * 3
EMOJI = "👩‍💻❤️🇳🇴👍🏽" * 12

Open = Callable[..., Tmux]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Runs a command in a window, against a server whose answers are given."""
    with ExitStack() as stack:

        def start(routes: Mapping[str, Answer | Sequence[Answer]], *arguments: str, columns: int = 80) -> Tmux:
            server = stack.enter_context(FakeServer({"POST /api/show": SHOWN, **routes}))
            environment = Shell(tmp_path, server.host).environment()
            window = Tmux([str(CORRAL), *arguments], environment, columns=columns)
            stack.enter_context(window)
            return window

        yield start


def said(*pieces: str, end: str = "whole") -> Answer:
    chunks = [{"response": piece, "done": False} for piece in pieces]
    return lines(*chunks, *([{"response": "", "done": True}] if end == "whole" else []), end=end)


def layer(digest: str, completed: int, total: int = 1_300_000_000) -> dict[str, object]:
    return {"status": f"pulling {digest}", "digest": f"sha256:{digest}", "total": total, "completed": completed}


@WIDTHS
def test_an_answer_in_chinese_is_broken_by_the_wrapper_not_by_the_window(opened: Open, columns: int) -> None:
    window = opened({"POST /api/generate": said(*CHINESE)}, "run", "m", "Hi", columns=columns)
    shown = window.wait_for("ended with 0").split("\n\n")[0].splitlines()
    assert "".join(shown) == CHINESE
    assert shown == window.scrollback.split("\n\n")[0].splitlines()  # no line was broken by the terminal
    assert all(2 * len(line) <= columns - MARGIN + 2 for line in shown)
    assert not [line for line in shown if line[0] in "，、。」！"]


@WIDTHS
def test_an_emoji_of_several_characters_stays_whole(opened: Open, columns: int) -> None:
    window = opened({"POST /api/generate": said(*EMOJI)}, "run", "m", "Hi", columns=columns)
    window.wait_for("ended with 0")
    shown = window.scrollback.split("\n\n")[0].splitlines()
    assert "".join(shown).replace("\ufe0f", "") == EMOJI.replace("\ufe0f", "")
    assert all(line[0] in "👩❤🇳👍" for line in shown)


def test_the_line_about_loading_and_reading_is_gone_when_the_answer_begins(opened: Open) -> None:
    waiting = [
        {"response": "", "done": False, "progress": {"stage": "loading", "completed": 25, "total": 100}},
        {"response": "", "done": False, "progress": {"stage": "reading", "completed": 1500, "total": 3000}},
    ]
    window = opened({"POST /api/generate": lines(*waiting, end="held")}, "run", "m", "Hi", columns=40)
    window.wait_for("reading the prompt 50%")
    window.press("C-c")
    assert window.wait_for("ended with 0").splitlines()[-1] == "ended with 0"
    assert "reading" not in window.screen
    answered = lines(*waiting, {"response": "Aye", "done": False}, {"response": "", "done": True})
    assert opened({"POST /api/generate": answered}, "run", "m", "Hi").wait_for("ended with 0") == "Aye\n\nended with 0"


def test_ctrl_c_leaves_the_shell_a_line_of_its_own(opened: Open) -> None:
    window = opened({"POST /api/generate": said("The sky ", "is ", "ye", end="held")}, "run", "m", "Hi")
    window.wait_for("The sky")
    window.press("C-c")
    assert window.wait_for("ended with 0").splitlines()[-1] == "ended with 0"


def test_an_answer_that_breaks_off_ends_with_an_error_on_its_own_line(opened: Open) -> None:
    window = opened({"POST /api/generate": said("The sky ", "is ", end="cut")}, "run", "m", "Hi")
    assert window.wait_for("ended with 1") == (
        "The sky is\nError: the corral server broke off its answer\nended with 1"
    )


@WIDTHS
def test_each_layer_has_a_bar_that_fits_its_window(opened: Open, columns: int) -> None:
    steps = [
        {"status": "pulling manifest"},
        layer("6e4c38e1172f", 650_000_000),
        layer("aaaaaaaaaaaa", 12_000, 12_000),
    ]
    window = opened({"POST /api/pull": lines(*steps, end="held")}, "pull", "m", columns=columns)
    window.wait_for("pulling 6e4c38e1172f:  50%", "pulling aaaaaaaaaaaa: 100%")
    shown = window.screen.splitlines()
    assert [line[:21] for line in shown] == ["pulling manifest", "pulling 6e4c38e1172f:", "pulling aaaaaaaaaaaa:"]
    assert "650 MB/1.3 GB" in shown[1]
    assert "12 KB" in shown[2]
    assert ("▕" in shown[1]) == (columns > 40)


@pytest.mark.parametrize(("before", "after"), [(120, 40), (120, 60), (40, 120)])
def test_bars_follow_a_window_that_is_made_narrower_or_wider(opened: Open, before: int, after: int) -> None:
    steps = [{"status": "pulling manifest"}, layer("6e4c38e1172f", 650_000_000), layer("aaaaaaaaaaaa", 300, 1000)]
    window = opened({"POST /api/pull": lines(*steps, end="held")}, "pull", "m", columns=before)
    window.wait_for("pulling 6e4c38e1172f:  50%", "pulling aaaaaaaaaaaa:  30%")
    window.resize(after, 24)

    def fits(screen: str) -> bool:
        lines = screen.splitlines()
        has_bars = ("▕" in screen) == (after > 40)
        return len(lines) == screen.count("pulling") == 3 and has_bars and after - 30 < len(lines[1]) <= after

    window.wait_until(fits, f"three lines at {after} columns")


def test_bars_stay_in_place_however_fast_a_window_is_resized(opened: Open) -> None:
    steps = [{"status": "pulling manifest"}, layer("6e4c38e1172f", 650_000_000), layer("aaaaaaaaaaaa", 300, 1000)]
    window = opened({"POST /api/pull": lines(*steps, end="held")}, "pull", "m")
    window.wait_for("pulling 6e4c38e1172f:  50%", "pulling aaaaaaaaaaaa:  30%")
    for columns in (60, 50, 70, 40, 90):
        window.resize(columns, 24)
    window.wait_until(lambda screen: max(map(len, screen.splitlines())) > 70, "a bar of ninety columns")
    assert [line[:19] for line in window.screen.splitlines()] == [
        "pulling manifest",
        "pulling 6e4c38e1172",
        "pulling aaaaaaaaaaa",
    ]


def test_ctrl_c_leaves_the_bars_where_they_are(opened: Open) -> None:
    steps = [{"status": "pulling manifest"}, layer("6e4c38e1172f", 650_000_000)]
    window = opened({"POST /api/pull": lines(*steps, end="held")}, "pull", "m")
    window.wait_for("pulling 6e4c38e1172f:  50%")
    window.press("C-c")
    first, second, last = window.wait_for("ended with 130").splitlines()
    assert (first, second[:27], last) == ("pulling manifest", "pulling 6e4c38e1172f:  50% ", "ended with 130")


def test_an_error_in_the_middle_of_a_pull_stands_below_its_bars(opened: Open) -> None:
    steps = [{"status": "pulling manifest"}, layer("6e4c38e1172f", 650_000_000), {"error": "the disk is full"}]
    window = opened({"POST /api/pull": lines(*steps)}, "pull", "m")
    first, second, third, last = window.wait_for("ended with 1").splitlines()
    assert (first, third, last) == ("pulling manifest", "Error: the disk is full", "ended with 1")
    assert second.startswith("pulling 6e4c38e1172f:  50% ▕")
