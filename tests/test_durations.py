"""Durations as Go reads and writes them (spec api §5.1, annex B)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import BadRequest
from corral.golang import durations

MS, US = 1_000_000, 1_000
S = durations.SECOND


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("5m", 300 * S),
        ("1h30m", 5400 * S),
        ("1h1m1s1ms1us1ns", 3661 * S + MS + US + 1),
        ("1.5s", 1500 * MS),
        (".5s", 500 * MS),
        ("1.s", S),
        ("+5s", 5 * S),
        ("-5m", -300 * S),
        ("10µs", 10 * US),
        ("10μs", 10 * US),
        ("0.000000001s", 1),
        ("0.0000000001s", 0),
        ("9223372036854775807ns", durations.FOREVER),
        ("2562047h47m16.854775807s", durations.FOREVER),
    ],
)
def test_parse(text: str, nanoseconds: int) -> None:
    assert durations.parse(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("1h30", 'time: missing unit in duration "1h30"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1e3s", 'time: unknown unit "e" in duration "1e3s"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        ("forever", 'time: invalid duration "forever"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("--1s", 'time: invalid duration "--1s"'),
        (" 1s", 'time: invalid duration " 1s"'),
        ("٣s", 'time: invalid duration "٣s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("1" * 50 + "s", f'time: invalid duration "{"1" * 50}s"'),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        durations.parse(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (999, "999ns"),
        (1500, "1.5µs"),
        (45_100, "45.1µs"),
        (1_500_000, "1.5ms"),
        (999_999_999, "999.999999ms"),
        (S, "1s"),
        (1_234_567_000, "1.234567s"),
        (60 * S, "1m0s"),
        (125 * S + 500 * MS, "2m5.5s"),
        (3600 * S, "1h0m0s"),
        (-1500 * MS, "-1.5s"),
        (durations.FOREVER, "2562047h47m16.854775807s"),
    ],
)
def test_text(nanoseconds: int, text: str) -> None:
    assert durations.text(nanoseconds) == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5m", 300.0),
        ("0", 0.0),
        ("1ms", 0.001),
        ("-1s", durations.FOREVER_SECONDS),
        (0, 0.0),
        (30, 30.0),
        (0.5, 0.5),
        (-1, durations.FOREVER_SECONDS),
        (-0.5, durations.FOREVER_SECONDS),
        (durations.FOREVER // durations.SECOND, durations.FOREVER_SECONDS),
        (10**400, durations.FOREVER_SECONDS),
    ],
)
def test_keep_alive(value: str | float, seconds: float) -> None:
    assert durations.keep_alive(value) == seconds


@given(st.integers(-durations.FOREVER, durations.FOREVER))
def test_what_is_written_reads_back(nanoseconds: int) -> None:
    assert durations.parse(durations.text(nanoseconds)) == nanoseconds


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert abs(durations.parse(text)) <= durations.FOREVER
