"""Durations as Go writes and reads them, in integer nanoseconds. Source: spec api §5.1 and annex B."""

import re

from corral.errors import BadRequest

SECOND = 1_000_000_000
FOREVER = (1 << 63) - 1
"""The largest duration there is, about 292 years, in nanoseconds; Go's programs write "for ever" as this."""
FOREVER_SECONDS = float("inf")
"""A time without end in seconds, the unit in which Corral keeps times."""

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_STEP = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


def parse(text: str) -> int:
    """`[+-]` and one or more `<decimal><unit>`, or `"0"`; nanoseconds. `BadRequest` with Go's sentence otherwise."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise BadRequest(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        match = _STEP.match(rest)
        if match is None or not (match[1] or match[2]):
            raise BadRequest(f'time: invalid duration "{text}"')
        whole, fraction, unit = match[1] or "0", match[2] or "", match[3]
        if not unit:
            raise BadRequest(f'time: missing unit in duration "{text}"')
        scale = _UNITS.get(unit)
        if scale is None:
            raise BadRequest(f'time: unknown unit "{unit}" in duration "{text}"')
        if len(whole) + len(fraction) > 40:
            raise BadRequest(f'time: invalid duration "{text}"')
        total += int(whole) * scale + int(fraction or "0") * scale // 10 ** len(fraction)
        rest = rest[match.end() :]
    if total > FOREVER:
        raise BadRequest(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total


def keep_alive(value: str | float) -> float:
    """Seconds that an idle model stays loaded, of a Go duration or a number of seconds (spec api §5.1).

    Zero: it is unloaded as soon as it is idle. Negative, or as long as no duration can be: for ever. `BadRequest` with
    Go's sentence for a text that is no duration.
    """
    if isinstance(value, str):
        nanoseconds = parse(value)
        return FOREVER_SECONDS if nanoseconds < 0 else nanoseconds / SECOND
    return float(value) if 0 <= value < FOREVER // SECOND else FOREVER_SECONDS


def text(nanoseconds: int) -> str:
    """`1.5ms`, `45.1µs`, `1m2.5s`, `0s`: the largest unit that fits, trailing zeros cut (spec api annex B)."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    for unit, scale in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < scale * 1000:
            return f"{sign}{_decimal(rest, scale)}{unit}"
    minutes, rest = divmod(rest, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, SECOND)}s"


def _decimal(value: int, scale: int) -> str:
    whole, fraction = divmod(value, scale)
    digits = len(str(scale)) - 1
    tail = f"{fraction:0{digits}d}".rstrip("0") if digits else ""
    return f"{whole}.{tail}" if tail else str(whole)
