"""Constants of Go: quoted strings, characters and numbers of all forms. Source: Go's language specification."""

import math
import re

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_ESCAPE = re.compile(r"""\\(?:([abfnrtv\\"'])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|)""")


def read_string(quoted: str) -> str | None:
    """The text of a string in double or back quotes; None when an escape in it is none of Go's.

    `\\x` and octal escapes stand for bytes: what they do not add up to in UTF-8 becomes U+FFFD.
    """
    inner = quoted[1:-1]
    if quoted[0] == "`":
        return inner.replace("\r", "")
    if "\\" not in inner:
        return inner
    written = bytearray()
    at = 0
    for escape in _ESCAPE.finditer(inner):
        written += inner[at : escape.start()].encode()
        value = _escaped(escape, '"')
        if value is None:
            return None
        written += bytes([value]) if escape[2] or escape[3] else chr(value).encode()
        at = escape.end()
    return (written + inner[at:].encode()).decode("utf-8", "replace")


def read_character(quoted: str) -> int:
    """The number of a character in single quotes. `ValueError` when it is not one character."""
    inner = quoted[1:-1]
    escape = _ESCAPE.fullmatch(inner)
    value = _escaped(escape, "'") if escape is not None else ord(inner) if len(inner) == 1 and inner != "\\" else None
    if value is None:
        raise ValueError(f"malformed character constant: {quoted[:40]}")
    return value


def _escaped(escape: re.Match[str], quote: str) -> int | None:
    """What an escape in a constant with these quotes stands for, a byte or a character."""
    simple, octal, *hexadecimal = escape.groups()
    if simple:
        return ord(_ESCAPES.get(simple, simple)) if simple not in "\"'" or simple == quote else None
    digits = next(filter(None, hexadecimal), "")
    if octal:
        value = int(octal, 8)
        return value if value < 256 else None
    if not digits:
        return None
    value = int(digits, 16)
    return value if value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else None


_DECIMAL = r"[0-9]+(?:_[0-9]+)*"
_HEX = r"[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*"
_INTEGER = re.compile(
    rf"""[+-]?(?:
    0[bB]_?(?P<binary>[01]+(?:_[01]+)*)
    | 0[oO]_?(?P<octal>[0-7]+(?:_[0-7]+)*)
    | 0[xX]_?(?P<hex>{_HEX})
    | 0_?(?P<old_octal>[0-7]+(?:_[0-7]+)*)
    | (?P<decimal>0|[1-9][0-9]*(?:_[0-9]+)*)
    )""",
    re.VERBOSE,
)
_FLOAT = re.compile(
    rf"""[+-]?(?:
    0[xX]_?(?:{_HEX}(?:\.(?:{_HEX})?)?|\.{_HEX})[pP][+-]?{_DECIMAL}
    | (?:{_DECIMAL}\.(?:{_DECIMAL})?|\.{_DECIMAL})(?:[eE][+-]?{_DECIMAL})?
    | {_DECIMAL}[eE][+-]?{_DECIMAL}
    )""",
    re.VERBOSE,
)
_BASES = {"binary": 2, "octal": 8, "hex": 16, "old_octal": 8, "decimal": 10}


def read_number(text: str) -> int | float | complex:
    """A number in any of Go's forms. `ValueError` says what is wrong: its form, or that it is beyond 64 bits."""
    if text.endswith("i"):
        return _read_complex(text)
    integer = _INTEGER.fullmatch(text)
    if integer is not None:
        return _read_integer(text, integer)
    if _FLOAT.fullmatch(text) is None:
        raise ValueError(f'bad number syntax: "{text[:40]}"')
    return _read_float(text)


def _read_integer(text: str, found: re.Match[str]) -> int:
    base = _BASES[str(found.lastgroup)]
    digits = found[str(found.lastgroup)].replace("_", "").lstrip("0") or "0"
    value = int(digits, base) if len(digits) <= 64 else 1 << 64
    value = -value if text[0] == "-" else value
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f'integer overflow: "{text[:40]}"')
    return value


def _read_float(text: str) -> float:
    plain = text.replace("_", "")
    try:
        value = float.fromhex(plain) if "x" in plain.lower() else float(plain)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise ValueError(f'number out of range: "{text[:40]}"')
    return value


def _read_complex(text: str) -> complex:
    """`2i`, `1+2i`: the second part begins at the last sign that is no exponent's."""
    split = max((at for at in range(1, len(text)) if text[at] in "+-" and text[at - 1] not in "eEpP"), default=0)
    parts = (text[:split], text[split:-1]) if split else ("0", text[:-1])
    real, imaginary = (_real_number(part) for part in parts)
    return complex(real, imaginary)


def _real_number(text: str) -> float:
    if not (_FLOAT.fullmatch(text) or re.fullmatch(rf"[+-]?{_DECIMAL}", text)):
        raise ValueError(f'bad number syntax: "{text[:40]}"')
    return _read_float(text)
