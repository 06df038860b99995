"""Sizes and counts as people read them. Source: spec cli §3.1, annex A.5 and A.6."""


def byte_text(size: int) -> str:
    """Decimal units: `42 GB`, `4.7 GB`, `2 GB`, `999 B`. From ten on the fraction is cut, not rounded."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= scale:
            return f"{size // scale if size >= 10 * scale else _decimal(size / scale, 1)} {unit}"
    return f"{size} B"


def count_text(count: int) -> str:
    """A number of parameters: `3.2B`, `494.03M`, `361K`."""
    if count >= 10**9:
        return _decimal(count / 10**9, 1) + "B"
    if count >= 10**6:
        return _decimal(count / 10**6, 2) + "M"
    if count >= 10**3:
        return f"{count / 10**3:.0f}K"
    return str(count)


def _decimal(value: float, digits: int) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits}f}"
