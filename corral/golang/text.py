"""Text as Go prints it: quoted strings and numbers. Source: spec api annex B."""

import struct


def quote(text: str) -> str:
    """`%q`: double quotes, backslash escapes, non-printable runes as escapes, printable Unicode kept."""
    return '"' + "".join(_ESCAPED.get(rune) or _printable(rune) for rune in text) + '"'


def quote_rune(rune: str) -> str:
    """A single character in single quotes, as Go's decoder names it."""
    return "'\\''" if rune == "'" else f"'{_ESCAPED_RUNE.get(rune) or _printable(rune)}'"


_ESCAPED_RUNE = {
    "\\": "\\\\",
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}
_ESCAPED = {**_ESCAPED_RUNE, '"': '\\"'}


def _printable(rune: str) -> str:
    if rune.isprintable():
        return rune
    code = ord(rune)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number_text(value: float) -> str:
    """A number as Go prints it in texts: shortest digits, plain for decimal exponents -4…5, else `1e+06` (annex B)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    digits, exponent = _shortest(float(value))
    if value == 0:
        return "-0" if str(float(value)).startswith("-") else "0"
    sign = "-" if value < 0 else ""
    if -4 <= exponent <= 5:
        return sign + _plain(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def shortest_float32(value: float) -> float:
    """The shortest decimal that is the same single-precision number: 1e-05 for 9.99999974737875e-06.

    `OverflowError` for what is beyond single precision.
    """
    single = as_float32(value)
    for digits in (7, 8):
        decimal = float(f"{single:.{digits}g}")
        if as_float32(decimal) == single:
            shorter = float(f"{single:.6g}")
            return shorter if digits == 7 and as_float32(shorter) == single else decimal
    return float(f"{single:.9g}")


def as_float32(value: float) -> float:
    """The nearest single-precision number, as a double of the same value."""
    single: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    return single


_FLOAT32 = struct.Struct("<f")


def _shortest(value: float) -> tuple[str, int]:
    """The digits of the shortest decimal that reads back as `value`, and its decimal exponent."""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) if whole.strip("0") else -(len(fraction) - len(fraction.lstrip("0")))
    return digits.rstrip("0") or "0", point - 1 + int(exponent or 0)


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return whole + ("." + digits[exponent + 1 :] if len(digits) > exponent + 1 else "")
