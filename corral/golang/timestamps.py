"""Moments in RFC 3339 as Go writes them: nanoseconds with trailing zeros cut. Source: spec api §1.2."""

import time
from datetime import datetime
from functools import lru_cache


def now_utc() -> str:
    """This moment in RFC 3339, UTC, nanoseconds with trailing zeros cut: the form of `created_at`."""
    return utc(time.time_ns())


def utc(nanoseconds: int) -> str:
    """A moment given in nanoseconds since the epoch, in RFC 3339 and UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return _second(seconds) + _fraction(rest) + "Z"


@lru_cache(maxsize=1)  # a token a millisecond asks for the same second over and over
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def local(nanoseconds: int) -> str:
    """The same in this machine's zone (`+02:00`, or `Z` where that is UTC): the form of `modified_at`."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds).astimezone()
    zone = moment.strftime("%z")
    suffix = "Z" if zone in ("+0000", "") else f"{zone[:3]}:{zone[3:5]}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + _fraction(rest) + suffix


def _fraction(nanoseconds: int) -> str:
    return "." + str(1_000_000_000 + nanoseconds)[1:].rstrip("0") if nanoseconds else ""
