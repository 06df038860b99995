"""Times as people read them. Source: spec cli §3.2 and annex A.4."""

from datetime import UTC, datetime, timedelta


def relative_time(moment: datetime, now: datetime) -> str:
    """`3 hours ago`, `4 minutes from now`; `Never` for Go's zero time, `Forever` for more than twenty years ahead."""
    if moment.year == 1:
        return "Never"
    elapsed = now - moment
    if elapsed < timedelta(0):
        ahead = -elapsed
        return "Forever" if ahead > timedelta(days=20 * 365) else f"{span_text(ahead.total_seconds())} from now"
    return f"{span_text(elapsed.total_seconds())} ago"


def span_text(seconds: float) -> str:
    """A length of time in its largest unit that says something."""
    whole, minutes, hours = int(seconds), int(seconds // 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, size, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{hours // 8760} years"


def now() -> datetime:
    return datetime.now(UTC)
