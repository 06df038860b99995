"""Numbers, times, tables, bars and wrapped words, as spec cli §3 and annex A write them."""

import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from corral.cli.commands.listing import models_table, processor_text, running_table
from corral.cli.commands.show import sections_text, value_text
from corral.cli.display.progress import Bar, Log, Screen, Spinner, remaining_text, show_steps
from corral.cli.display.tables import section, table
from corral.cli.display.text import cut, printable, text_width
from corral.cli.display.units import relative_time
from corral.cli.display.wrap import MARGIN, Wrapper
from corral.client.answers import Installed, Running, shown
from corral.golang.units import byte_text, count_text
from corral.messages import Progress

NOW = datetime(2026, 8, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1024, "1.0 KB"),
        (1536, "1.5 KB"),
        (9_999, "10.0 KB"),
        (10_240, "10 KB"),
        (397_807_936, "397 MB"),
        (2_000_000_000, "2 GB"),
        (4_661_224_676, "4.7 GB"),
        (42_999_999_999, "42 GB"),
        (1_500_000_000_000, "1.5 TB"),
    ],
)
def test_bytes(size: int, text: str) -> None:
    assert byte_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (494_032_768, "494.03M"),
        (1_235_814_400, "1.2B"),
        (7_000_000_000, "7B"),
        (22_713_216, "22.71M"),
        (361_000, "361K"),
        (999, "999"),
    ],
)
def test_parameter_counts(count: int, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "About a minute ago"),
        (119, "About a minute ago"),
        (120, "2 minutes ago"),
        (3599, "59 minutes ago"),
        (3600, "About an hour ago"),
        (90 * 60, "2 hours ago"),
        (47.4 * 3600, "47 hours ago"),
        (48 * 3600, "2 days ago"),
        (14 * 86400, "2 weeks ago"),
        (60 * 86400, "2 months ago"),
        (730 * 86400, "2 years ago"),
        (-299, "4 minutes from now"),
        (-21 * 365 * 86400, "Forever"),
    ],
)
def test_relative_times(seconds: float, text: str) -> None:
    assert relative_time(NOW - timedelta(seconds=seconds), NOW) == text


def test_gos_zero_time_is_never() -> None:
    assert relative_time(datetime(1, 1, 1, tzinfo=UTC), NOW) == "Never"


def installed(name: str, digest: str, size: int, age: timedelta, *, remote: bool = False) -> Installed:
    return Installed(name, digest, size, NOW - age, remote)


def test_the_table_of_models() -> None:
    models = (
        installed("tiny:latest", "0123456789abcdef", 397_807_936, timedelta(hours=3)),
        installed("other:1b", "ba9876543210fedc", 1_300_000_000, timedelta(days=2)),
    )
    assert models_table(models, "", NOW).replace(" ", "·") == (
        "NAME···········ID··············SIZE······MODIFIED····\n"
        "tiny:latest····0123456789ab····397·MB····3·hours·ago····\n"
        "other:1b·······ba9876543210····1.3·GB····2·days·ago·····\n"
    )
    assert models_table(models, "OTH", NOW) == (
        "NAME        ID              SIZE      MODIFIED   \nother:1b    ba9876543210    1.3 GB    2 days ago    \n"
    )
    narrow = [models_table(models, "OTH", NOW, width).splitlines()[0].split() for width in (48, 47, 30, 1)]
    assert narrow == [["NAME", "ID", "SIZE", "MODIFIED"], ["NAME", "SIZE", "MODIFIED"], *[["NAME", "SIZE"]] * 2]
    assert models_table(models, "zzz", NOW) == "NAME    ID    SIZE    MODIFIED \n"


def test_a_model_elsewhere_has_no_size() -> None:
    models = (installed("far:latest", "0123456789abcdef", 384, timedelta(hours=24), remote=True),)
    assert "    -       24 hours ago    \n" in models_table(models, "", NOW)


def test_the_table_of_loaded_models() -> None:
    forever = NOW + timedelta(days=292 * 365)
    models = (
        Running("tiny:latest", "0123456789abcdef", 812_345_678, 0, 4096, NOW + timedelta(seconds=299)),
        Running("other:1b", "ba9876543210fedc", 1_900_000_000, 1_425_000_000, 8192, forever),
    )
    assert running_table(models, "", NOW) == (
        "NAME           ID              SIZE      PROCESSOR          CONTEXT    UNTIL              \n"
        "tiny:latest    0123456789ab    812 MB    100% CPU           4096       4 minutes from now    \n"
        "other:1b       ba9876543210    1.9 GB    25%/75% CPU/GPU    8192       Forever               \n"
    )
    assert running_table(models, "Other", NOW) == "NAME    ID    SIZE    PROCESSOR    CONTEXT    UNTIL \n"


def test_a_model_past_its_time_is_stopping() -> None:
    times = (NOW - timedelta(seconds=1), datetime(1, 1, 1, tzinfo=UTC))
    models = tuple(Running("a:b", "", 1, 1, 1, expires) for expires in times)
    rows = running_table(models, "", NOW).splitlines()
    assert rows[1].rstrip().endswith("Stopping...")
    assert rows[2].rstrip().endswith("Never")


@pytest.mark.parametrize(
    ("size", "size_vram", "text"),
    [(5, 0, "100% CPU"), (0, 0, "100% CPU"), (5, 5, "100% GPU"), (5, 6, "Unknown"), (0, 1, "Unknown")],
)
def test_processors(size: int, size_vram: int, text: str) -> None:
    assert processor_text(size, size_vram) == text


def test_long_cells_go_on_below_and_long_words_stay_whole() -> None:
    cell = "a sentence that is longer than thirty columns and so goes on"
    word = "x" * 40
    assert table(("ONE", "TWO"), [(cell, word), ("short", "")]) == (
        f"{'ONE':<30}    {'TWO':<40} \n"
        f"a sentence that is longer than    {word}    \n"
        f"{'thirty columns and so goes on':<30}    {'':<40}    \n"
        f"{'short':<30}    {'':<40}    \n"
    )


# Spacing marks and joiners have no width by themselves: it depends on what stands beside them.
CELLS = st.text(st.characters(exclude_categories=["Cs", "Mc", "Cf"]), max_size=50)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_columns_line_up_whatever_is_in_them(rows: list[tuple[str, str]]) -> None:
    _, *lines = table(("A", "B"), rows).removesuffix("\n").split("\n")
    assert len({wcswidth(line) for line in lines}) <= 1


def test_show_without_model_info() -> None:
    model = shown(
        {
            "parameters": 'stop                           "<|im_end|>"',
            "system": "You are terse.",
            "details": {"family": "qwen2", "parameter_size": "494.03M", "quantization_level": "Q4_K_M"},
            "capabilities": ["completion", "tools"],
            "model_info": {},
        }
    )
    assert sections_text(model) == (
        "  Model\n"
        "    architecture    qwen2      \n"
        "    parameters      494.03M    \n"
        "    quantization    Q4_K_M     \n"
        "\n"
        "  Capabilities\n"
        "    completion    \n"
        "    tools         \n"
        "\n"
        "  Parameters\n"
        '    stop    "<|im_end|>"    \n'
        "\n"
        "  System\n"
        "    You are terse.    \n"
        "\n"
    )


def test_show_says_what_memory_a_model_takes() -> None:
    needs = {"weights": 98_362_790, "context_length": 4096, "kv_cache": 94_371_840, "total": 259_843_494}
    model = shown({"details": {"family": "llama"}, "requirements": needs})
    head = "  Model\n    architecture    llama    \n    parameters               \n    quantization             \n\n"
    assert sections_text(model) == (
        f"{head}  Memory\n"
        "    weights                   98 MB     \n"
        "    context of 4096 tokens    94 MB     \n"
        "    total                     259 MB    \n"
        "\n"
    )
    assert sections_text(model, memory=False) == head
    without_cache = shown({"details": {}, "requirements": {"weights": 1000, "context_length": 512, "total": 2000}})
    assert "context" not in sections_text(without_cache)


def test_show_with_everything() -> None:
    info = {
        "general.architecture": "llama",
        "general.parameter_count": 3_212_749_888,
        "llama.context_length": 131072,
        "llama.embedding_length": 3072,
        "llama.rope.freq_base": 500000.0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.tokens": ["<s>", "</s>", "the", "of"],
        "tokenizer.ggml.merges": None,
    }
    projector = {"general.architecture": "clip", "general.parameter_count": 21_000_000}
    model = shown(
        {
            "license": "\nFirst line\n\n  Second line \nThird line",
            "details": {"family": "llama", "quantization_level": "Q4_K_M"},
            "requires": "0.9.0",
            "capabilities": ["vision"],
            "model_info": info,
            "projector_info": {**projector, "clip.vision.embedding_length": 7, "clip.vision.projection_dim": 8},
            "tensors": [{"name": "output.weight", "type": "Q6_K", "shape": [3072, 128]}],
        }
    )
    assert sections_text(model, verbose=True) == (
        "  Model\n"
        "    architecture        llama     \n"
        "    parameters          3.2B      \n"
        "    context length      131072    \n"
        "    embedding length    3072      \n"
        "    quantization        Q4_K_M    \n"
        "    requires            0.9.0     \n"
        "\n"
        "  Capabilities\n"
        "    vision    \n"
        "\n"
        "  Projector\n"
        "    architecture        clip    \n"
        "    parameters          21M     \n"
        "    embedding length    7       \n"
        "    dimensions          8       \n"
        "\n"
        "  Metadata\n"
        "    general.architecture            llama                    \n"
        "    general.parameter_count         3.212749888e+09          \n"
        "    llama.context_length            131072                   \n"
        "    llama.embedding_length          3072                     \n"
        "    llama.rope.freq_base            500000                   \n"
        "    tokenizer.ggml.add_bos_token    true                     \n"
        "    tokenizer.ggml.merges           <nil>                    \n"
        "    tokenizer.ggml.tokens           [<s> </s> ...+2 more]    \n"
        "\n"
        "  Tensors\n"
        "    output.weight    Q6_K    [3072 128]    \n"
        "\n"
        "  License\n"
        "    First line     \n"
        "    Second line    \n"
        "    ...            \n"
        "\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8e9, "8e+09"),
        (1000, "1000"),
        (10**400, "1" + "0" * 400),
        (float("inf"), "inf"),
        (None, "<nil>"),
        (False, "false"),
        ([], "[]"),
        ([1, 2, 3], "[1 2 3]"),
        (["a long first item", "b"], "[a long first item ...+1 more]"),
    ],
)
def test_metadata_values(value: object, text: str) -> None:
    assert value_text(value) == text


def test_the_lines_of_a_long_system_text_are_wrapped_at_a_hundred_columns() -> None:
    text = section("System", [("word " * 30,)], cell_width=100)
    assert [len(line) for line in text.splitlines()] == [len("  System"), 107, 107, 0]


@given(st.text())
def test_nothing_printable_is_lost_and_nothing_else_is_kept(text: str) -> None:
    clean = printable(text, keep="\n\t")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", clean)
    assert clean == re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


def test_wide_characters_count_twice_and_are_cut_whole() -> None:
    assert text_width("模型") == 4
    assert cut("模型", 3) == "模"


def bar(total: int, *samples: tuple[float, int]) -> Bar:
    made = Bar("pulling 6e4c38e1172f:", total, "▕█▏")
    for moment, completed in samples:
        made.advance(total, completed, moment)
    return made


def test_a_bar_fills_the_terminal() -> None:
    running = bar(1_300_000_000, (0, 1), (1, 12_000_000))
    inner = 120 - len("pulling 6e4c38e1172f:   1%") - 31 - 5
    left, right = "pulling 6e4c38e1172f:   1% ▕", "▏  12 MB/1.3 GB   11 MB/s   1m47s"
    assert running.text(120, 1) == left + " " * inner + right


def test_a_finished_bar_shows_its_size_alone() -> None:
    finished = bar(1_300_000_000, (0, 1), (1, 1_300_000_000))
    inner = 80 - len("pulling 6e4c38e1172f: 100%") - 31 - 5
    assert finished.text(80, 1) == f"pulling 6e4c38e1172f: 100% ▕{'█' * inner}▏ 1.3 GB{' ' * 25}"


@pytest.mark.parametrize("width", [20, 30, 40, 50, 60, 70, 80, 200])
def test_a_bar_never_is_wider_than_its_window(width: int) -> None:
    for line in (bar(1_300_000_000, (0, 1), (1, 12_000_000)), Spinner("a long status " * 20, "⠋")):
        assert text_width(line.text(width, 1)) <= width


def test_a_narrow_window_keeps_the_sizes() -> None:
    assert bar(1_300_000_000, (0, 1), (1, 650_000_000)).text(40, 1) == "pulling 6e4c38e1172f:  50% 650 MB/1.3 GB"
    assert bar(1_300_000_000, (0, 1), (1, 650_000_000)).text(20, 1) == "pulling 6e4c38e  50%"


def test_a_bar_never_goes_back() -> None:
    made = bar(100, (0, 60), (0.1, 40))
    assert made.completed == 60


def test_a_bar_whose_size_was_only_estimated_at_first_ends_when_all_is_there() -> None:
    made = bar(92_000_000, (0, 1))
    made.advance(91_876_543, 91_876_543, 1)
    assert made.finished


@pytest.mark.parametrize(
    ("seconds", "text"), [(28.4, "28s"), (59.6, "1m0s"), (185, "3m5s"), (7800, "2h10m"), (360_000, "99h+")]
)
def test_remaining_times(seconds: float, text: str) -> None:
    assert remaining_text(seconds) == text


class Clock:
    """Goes on only when the test says so."""

    def __init__(self) -> None:
        self.moment = 0.0

    def __call__(self) -> float:
        return self.moment


def test_without_a_terminal_a_job_gives_few_plain_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    log = Log(stream, clock)
    steps = [Progress("pulling manifest"), Progress("pulling manifest")]
    steps += [Progress("pulling 6e4c38e1172f", "sha256:6e4c", 1000, done) for done in (0, *range(1, 1001), 1000)]
    steps += [Progress("pulling aaa", "sha256:aaa", 0, 5), Progress("verifying sha256 digest"), Progress("success")]
    for step in steps:
        show_steps([step], log)
        clock.moment += 0.012
    assert stream.getvalue() == (
        "pulling manifest\n"
        "pulling 6e4c38e1172f:   0% 1 B/1 KB\n"
        + "".join(
            f"pulling 6e4c38e1172f: {10 * n:3}% {100 * n} B/1 KB, 83 B/s, {left}s left\n"
            for n, left in enumerate((11, 10, 8, 7, 6, 5, 4, 2, 1), 1)
        )
        + "pulling 6e4c38e1172f: 100% 1 KB\n"
        "pulling aaa: 100% 0 B\n"
        "verifying sha256 digest\n"
        "success\n"
    )


def test_without_a_terminal_a_slow_download_still_gives_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    log = Log(stream, clock)
    for done in range(1, 12):
        log.advance("a", "pulling a:", 1000, done)
        clock.moment += 1
    assert stream.getvalue().splitlines() == [
        "pulling a:   0% 1 B/1 KB",
        "pulling a:   1% 6 B/1 KB, 1 B/s, 16m34s left",
        "pulling a:   1% 11 B/1 KB, 1 B/s, 16m29s left",
    ]


def test_a_screen_ends_with_all_states_in_place() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    show_steps(
        [
            Progress("pulling manifest"),
            Progress("pulling 6e4c38e1172f", "sha256:6e4c", 1000, 1000),
            Progress("pulling\x1b[2J evil"),
            Progress("success"),
        ],
        screen,
    )
    screen.close()
    last = stream.getvalue().rsplit("\x1b[1G", 1)[1]
    assert last.replace("\x1b[K\x1b[?25h\x1b[?2026l\n", "").split("\x1b[K\n") == [
        "pulling manifest ",
        f"pulling 6e4c38e1172f: 100% [{'#' * 18}]   1 KB{' ' * 25}",
        "pulling[2J evil ",
        "success ",
    ]


def wrap(text: str, width: int) -> str:
    wrapper = Wrapper(width)
    return wrapper.feed(text) + wrapper.flush()


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("the quick brown fox jumps over", "the quick brown\nfox jumps over"),
        ("one\ntwo", "one\ntwo"),
        ("  indented  twice", "  indented\ntwice"),
        ("https://example.com/a/very/long/address goes on", "https://example.com/a/very/long/address\ngoes on"),
        ("https://example.com/long goes on", "https://example.com/long goes on"),
        ("你好世界你好世界你好", "你好世界你好世\n界你好"),
        ("你好世界你好世，界", "你好世界你好世，\n界"),
        ("你好世界你好a（世界）", "你好世界你好a\n（世界）"),
        ("👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻", "👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻👩‍💻\n👩‍💻"),
        ("🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴", "🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴🇳🇴\n🇳🇴"),
        ("👍🏽👍🏽👍🏽👍🏽👍🏽👍🏽👍🏽👍🏽", "👍🏽👍🏽👍🏽👍🏽👍🏽👍🏽👍🏽\n👍🏽"),
        ("한국어는 띄어쓰기를 합니다 그래서", "한국어는\n띄어쓰기를\n합니다 그래서"),
        ("あいうえおかきゃくけ", "あいうえおか\nきゃくけ"),
        ("あいうえおかきくー", "あいうえおかき\nくー"),
        ("tabs\tcount as far as they reach", "tabs\tcount\nas far as they\nreach"),
    ],
)
def test_words_are_wrapped_five_columns_before_the_edge(text: str, wrapped: str) -> None:
    assert wrap(text, 20) == wrapped


def test_too_narrow_a_window_gets_its_text_unwrapped() -> None:
    assert wrap("the quick brown fox", 9) == "the quick brown fox"


WORDS = st.text(st.sampled_from(list("abc déf \n\t.，。（） 你好👩👍\u200d\U0001f3fd\U0001f1f3é")), max_size=80)


@given(WORDS, st.integers(10, 40), st.data())
def test_however_the_text_arrives_the_lines_are_the_same(text: str, width: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    wrapper = Wrapper(width)
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(map(wrapper.feed, pieces)) + wrapper.flush() == wrap(text, width)


def test_words_go_on_at_the_width_that_the_window_has_by_then() -> None:
    wrapper = Wrapper(40)
    shown = wrapper.feed("the quick brown fox jumps ")
    wrapper.resize(20)
    shown += wrapper.feed("over the lazy dog and ")
    wrapper.resize(30)
    shown += wrapper.feed("sleeps for a while") + wrapper.flush()
    # At twenty columns the terminal has broken the first line, of which five columns stand in its last row.
    assert shown == "the quick brown fox jumps over the\nlazy dog and sleeps for a\nwhile"


@given(WORDS, st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_no_resize_loses_or_invents_a_word(text: str, widths: list[int]) -> None:
    wrapper = Wrapper(widths[0])
    shown = ""
    for width in widths:
        wrapper.resize(width)
        shown += wrapper.feed(text)
    assert re.sub(r"\s", "", shown + wrapper.flush()) == re.sub(r"\s", "", text * len(widths))


@given(st.text("你好，。」（a b\n", max_size=60), st.integers(14, 40))
def test_no_line_begins_with_closing_punctuation_unless_the_text_does(text: str, width: int) -> None:
    spaced = re.sub(r"\s+(?=[，。」])", "", text.lstrip("，。」 \n"))
    assert not [line for line in wrap(spaced, width).split("\n") if line.startswith(("，", "。", "」"))]


@given(WORDS, st.integers(10, 40))
def test_wrapping_only_turns_blanks_into_line_ends_or_adds_some(text: str, width: int) -> None:
    assert re.sub(r"\s", "", wrap(text, width)) == re.sub(r"\s", "", text)
    assert wrap(text, width).count("\n") >= text.count("\n")


@given(st.lists(st.text("abcdef", min_size=1, max_size=9), max_size=30), st.integers(14, 40))
def test_no_line_of_short_words_passes_the_margin(words: list[str], width: int) -> None:
    assert all(len(line.rstrip()) <= width - MARGIN for line in wrap(" ".join(words), width).splitlines())


@given(st.text("你好世界", max_size=60), st.integers(14, 40))
def test_no_line_of_wide_characters_passes_the_margin(text: str, width: int) -> None:
    assert all(wcswidth(line) <= width - MARGIN for line in wrap(text, width).splitlines())
