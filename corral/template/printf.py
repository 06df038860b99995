"""Go's `fmt.Sprintf` for the values a template has. Source: the documentation of Go's package fmt.

Values are None, booleans, integers, floats and texts. A directive that does not fit its value prints as Go prints it,
`%!d(string=x)`. What a hostile format could grow to is bounded: its length, and the columns a directive asks for.
"""

import re
from typing import TypeAlias

from msgspec import Struct

from corral.errors import TemplateError
from corral.golang.text import number_text, quote, quote_rune

MAX_WIDTH = 1000
"""Columns a directive may ask for. Templates indent and align; none needs more."""

MAX_FORMAT = 4096
"""Characters of a format."""

Basic: TypeAlias = bool | int | float | str | None

_DIRECTIVE = re.compile(
    r"%(?P<flags>[-+# 0]*)"
    r"(?P<width_index>\[(?:[^]]*\])?)?(?P<width>\*|[0-9]*)"
    r"(?:(?P<dot>\.(?=.))(?P<precision_index>\[(?:[^]]*\])?)?(?P<precision>\*|[0-9]*))?"
    r"(?:(?<!\])(?P<index>\[(?:[^]]*\])?))?(?P<verb>.)?",
    re.DOTALL,
)


class _Flags(Struct):
    """How a directive wants its value."""

    minus: bool
    plus: bool
    sharp: bool
    space: bool
    zero: bool
    width: int | None = None
    precision: int | None = None
    is_go_syntax: bool = False
    """`%#v`: texts are quoted."""


def sprintf(pattern: str, *values: Basic) -> str:
    """The format with its directives replaced. `TemplateError` when it is too long or asks for too many columns."""
    if len(pattern) > MAX_FORMAT:
        raise TemplateError(f"printf format longer than {MAX_FORMAT} characters")
    printer = _Printer(values)
    text = _DIRECTIVE.sub(printer.directive, pattern)
    return text + printer.rest()


class _Printer:
    def __init__(self, values: tuple[Basic, ...]) -> None:
        self._values = values
        self._next = 0
        self._is_indexed = False
        self._is_good = True
        """Whether the indexes of the current directive are such that it has a value."""

    def directive(self, found: re.Match[str]) -> str:
        """What stands in the text for one directive."""
        signs = found["flags"]
        flags = _Flags("-" in signs, "+" in signs, "#" in signs, " " in signs, "0" in signs)
        if found["verb"] == "v":
            flags.is_go_syntax, flags.sharp, flags.plus = flags.sharp, False, False
        self._is_good = True
        before = self._width(found, flags) + self._precision(found, flags)
        self._index(found["index"])
        verb = found["verb"]
        if verb is None:
            return before + "%!(NOVERB)"
        if verb == "%":
            return before + "%"
        if not self._is_good:
            return f"{before}%!{verb}(BADINDEX)"
        if self._next >= len(self._values):
            return f"{before}%!{verb}(MISSING)"
        self._next += 1
        return before + _printed(self._values[self._next - 1], verb, flags)

    def rest(self) -> str:
        """What Go says of values that no directive took."""
        if self._is_indexed or self._next >= len(self._values):
            return ""
        extra = (
            "<nil>" if value is None else f"{_type(value)}={_printed(value, 'v', _Flags(*[False] * 5))}"
            for value in self._values[self._next :]
        )
        return "%!(EXTRA " + ", ".join(extra) + ")"

    def _index(self, text: str | None) -> None:
        """Goes to the value that `[n]` names."""
        if text is None:
            return
        self._is_indexed = True
        digits = text[1:-1]
        if text.endswith("]") and digits.isascii() and digits.isdigit() and 0 < _bounded(digits) <= len(self._values):
            self._next = _bounded(digits) - 1
        else:
            self._is_good = False

    def _width(self, found: re.Match[str], flags: _Flags) -> str:
        self._index(found["width_index"])
        if found["width"] == "*":
            width = self._count()
            if width is None:
                return "%!(BADWIDTH)"
            flags.minus = flags.minus or width < 0
            flags.width = abs(width)
        elif found["width"]:
            flags.width = _bounded(found["width"])
            self._is_good = self._is_good and found["width_index"] is None
        elif found["width_index"] is not None and found["dot"]:
            self._is_good = False
        return ""

    def _precision(self, found: re.Match[str], flags: _Flags) -> str:
        if not found["dot"]:
            return ""
        self._index(found["precision_index"])
        if found["precision"] == "*":
            precision = self._count()
            if precision is None:
                return "%!(BADPREC)"
            flags.precision = precision if precision >= 0 else None
            return "" if precision >= 0 else "%!(BADPREC)"
        flags.precision = _bounded(found["precision"] or "0")
        return ""

    def _count(self) -> int | None:
        """The next value as a width or precision; None when it is no integer."""
        value = self._values[self._next] if self._next < len(self._values) else None
        self._next += self._next < len(self._values)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return _within_width(value)


def _bounded(digits: str) -> int:
    return _within_width(int(digits) if len(digits) <= 6 else MAX_WIDTH + 1)


def _within_width(value: int) -> int:
    if abs(value) > MAX_WIDTH:
        raise TemplateError(f"printf width over {MAX_WIDTH} columns")
    return value


def _type(value: Basic) -> str:
    return {bool: "bool", int: "int", float: "float64", str: "string"}.get(type(value), "<nil>")


def _printed(value: Basic, verb: str, flags: _Flags) -> str:
    text: str | None = None
    match value:
        case None:
            return _padded("<nil>", flags) if verb in "vT" else f"%!{verb}(<nil>)"
        case _ if verb == "T":
            text = _padded(_cut(_type(value), flags), flags)
        case bool():
            text = _padded("true" if value else "false", flags) if verb in "tv" else None
        case int():
            text = _integer(value, verb, flags)
        case float():
            text = _float(value, verb, flags)
        case str():
            text = _text(value, verb, flags)
    if text is None:
        return f"%!{verb}({_type(value)}={_printed(value, 'v', flags)})"
    return text


def _padded(text: str, flags: _Flags, *, zero: bool | None = None) -> str:
    zero = flags.zero if zero is None else zero
    width = flags.width or 0
    if flags.minus:
        return text.ljust(width)
    return text.rjust(width, "0" if zero else " ")


def _cut(text: str, flags: _Flags) -> str:
    return text if flags.precision is None else text[: flags.precision]


def _text(value: str, verb: str, flags: _Flags) -> str | None:
    match verb:
        case "v" if flags.is_go_syntax:
            return _padded(quote(_cut(value, flags)), flags)
        case "s" | "v":
            return _padded(_cut(value, flags), flags)
        case "q":
            return _padded(_quoted(_cut(value, flags), flags), flags)
        case "x" | "X":
            return _padded(_hex(value, verb, flags), flags)
        case _:
            return None


def _quoted(value: str, flags: _Flags) -> str:
    if flags.sharp and "`" not in value and all(rune == "\t" or rune.isprintable() for rune in value):
        return f"`{value}`"
    return _in_ascii(quote(value)) if flags.plus else quote(value)


def _in_ascii(text: str) -> str:
    return "".join(
        rune if rune.isascii() else f"\\u{ord(rune):04x}" if ord(rune) < 0x10000 else f"\\U{ord(rune):08x}"
        for rune in text
    )


def _hex(value: str, verb: str, flags: _Flags) -> str:
    raw = value.encode()
    raw = raw if flags.precision is None else raw[: flags.precision]
    prefix = "0x" if flags.sharp and raw else ""
    text = prefix + (f" {prefix}".join(f"{byte:02x}" for byte in raw) if flags.space else raw.hex())
    return text.upper() if verb == "X" else text


def _integer(value: int, verb: str, flags: _Flags) -> str | None:
    match verb:
        case "v" | "d":
            return _number(value, f"{abs(value)}", "", flags)
        case "b":
            return _number(value, f"{abs(value):b}", "0b" if flags.sharp else "", flags)
        case "o":
            return _number(value, f"{abs(value):o}", "0" if flags.sharp else "", flags)
        case "O":
            return _number(value, f"{abs(value):o}", "0o0" if flags.sharp else "0o", flags)
        case "x" | "X":
            return _number(value, f"{abs(value):{verb}}", f"0{verb}" if flags.sharp else "", flags)
        case "c":
            return _padded(_rune(value), flags)
        case "q":
            quoted = quote_rune(_rune(value))
            return _padded(_in_ascii(quoted) if flags.plus else quoted, flags)
        case "U":
            return _unicode(value, flags)
        case _:
            return None


def _rune(value: int) -> str:
    """A character by its number. `TemplateError` where there is none, for which Go prints U+FFFD."""
    if not 0 <= value <= 0x10FFFF or 0xD800 <= value < 0xE000:
        raise TemplateError(f"no character has the number {value}")
    return chr(value)


def _unicode(value: int, flags: _Flags) -> str:
    # Go prints the number as one without a sign.
    digits = f"{value % (1 << 64):X}".rjust(max(4, flags.precision or 0), "0")
    shown = f" '{_rune(value)}'" if flags.sharp and _rune(value).isprintable() else ""
    return _padded(f"U+{digits}{shown}", flags, zero=False)


def _number(value: int, digits: str, prefix: str, flags: _Flags) -> str:
    sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
    if flags.precision is not None:
        if flags.precision == 0 and value == 0:
            return " " * (flags.width or 0)
        digits = digits.rjust(flags.precision, "0")
    elif flags.zero and not flags.minus and flags.width is not None:
        digits = digits.rjust(flags.width - len(sign), "0")
    if prefix == "0" and digits.startswith("0"):
        prefix = ""
    return _padded(sign + prefix + digits, flags, zero=False)


def _float(value: float, verb: str, flags: _Flags) -> str | None:
    if verb in "bxX":
        raise TemplateError(f"printf verb {verb} is not supported for a float")
    if verb not in "veEfFgG":
        return None
    is_shortest = verb in "vgG" and flags.precision is None and not flags.sharp
    if is_shortest:
        text = number_text(abs(value)) if verb != "G" else number_text(abs(value)).upper()
    else:
        form = "g" if verb == "v" else "f" if verb == "F" else verb
        precision = 6 if flags.precision is None else flags.precision
        text = format(abs(value), f"{'#' if flags.sharp else ''}.{precision}{form}")
    sign = "-" if str(value).startswith("-") else "+" if flags.plus else " " if flags.space else ""
    if flags.zero and not flags.minus and flags.width is not None:
        text = text.rjust(flags.width - len(sign), "0")
    return _padded(sign + text, flags, zero=False)
