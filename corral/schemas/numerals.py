"""Regular expressions for JSON numbers that end: so many digits, an exponent that floats have, between two bounds.

Knows the notation of numbers and of terminals in the engine's grammars; no schema.
"""

from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal

from msgspec import Struct

INTEGER_DIGITS = 20
"""Digits before the point: as many as the largest whole number of 64 bits has."""
FRACTION_DIGITS = 20
"""Digits after the point: a float in [0.001, 1) is exact with them."""
MAX_EXPONENT = 299
"""With the digits that may stand before it, what it makes is still a float and not infinite."""

_FRACTION = rf"(\.[0-9]{{1,{FRACTION_DIGITS}}})?"
_DECIMAL = f"(0|[1-9][0-9]{{0,{INTEGER_DIGITS - 1}}}){_FRACTION}"
_NATURAL = "(0|[1-9][0-9]?|[12][0-9][0-9])"
"""Exponents up to the largest, without a sign."""
_ANY = rf"({_DECIMAL}|(0|[1-9][0-9]{{0,8}}){_FRACTION}[eE][+-]?0?{_NATURAL})"
_MANTISSA = "[1-9]" + _FRACTION
"""Of a number in scientific notation: at least 1 and less than 10."""


class Bound(Struct, frozen=True):
    value: Decimal
    is_inclusive: bool = True

    def negated(self) -> "Bound":
        return Bound(-self.value, self.is_inclusive)


ZERO = Bound(Decimal(0))


class Interval(Struct, frozen=True):
    """Numbers between two bounds; None is no bound."""

    least: Bound | None = None
    most: Bound | None = None

    def magnitudes(self) -> tuple["Interval | None", "Interval | None"]:
        """The numbers from zero up, and those below it without their sign; None where there are none."""
        positive = Interval(_greater(self.least, ZERO), self.most)
        mirrored = Interval(_negated(self.most), _negated(self.least))
        negative = Interval(_greater(mirrored.least, ZERO), mirrored.most)
        goes_below = self.least is None or self.least.value < 0
        return positive if positive._has_any() else None, negative if goes_below and negative._has_any() else None

    def has_multiple_of(self, step: Decimal) -> bool:
        """Whether a multiple of a positive number is in an interval that begins at zero or above."""
        least = self.least or ZERO
        first = (least.value / step).to_integral_value(ROUND_CEILING) * step
        if first == least.value and not least.is_inclusive:
            first += step
        return Interval(Bound(first), self.most)._has_any()

    def _has_any(self) -> bool:
        if self.least is None or self.most is None or self.least.value < self.most.value:
            return True
        return self.least.value == self.most.value and self.least.is_inclusive and self.most.is_inclusive


def terminal(interval: Interval) -> str:
    """The right side of a terminal that matches the numbers of an interval, which is not empty.

    Scientific notation is among them where its exponent alone shows that a number is within the bounds.
    """
    if interval.least is None and interval.most is None:
        return f"/-?{_ANY}/"
    positive, negative = interval.magnitudes()
    signs = [("", positive), ('"-" ', negative)]
    return " | ".join(f"{sign}({_magnitude(part)})" for sign, part in signs if part is not None)


def _magnitude(interval: Interval) -> str:
    """`interval` begins at zero or above."""
    least, most = interval.least or ZERO, interval.most
    if least.value == 0 and most is None:
        return f"/{_ANY}/" if least.is_inclusive else f"(/{_ANY}/ & /[0.]*[1-9].*/)"
    conditions = [f"/{_DECIMAL}/"]
    conditions += [] if least == ZERO else [_alternatives(_at_least(least))]
    conditions += [] if most is None else [_alternatives(_at_most(most))]
    decimal = "(" + " & ".join(conditions) + ")"
    lowest = -MAX_EXPONENT if least.value == 0 else _exponent_from(least)
    highest = MAX_EXPONENT if most is None else _exponent_to(most)
    exponents = _exponents(lowest, highest)
    return f"{decimal} | (/{_MANTISSA}[eE]/ ({exponents}))" if exponents else decimal


def _exponent_from(least: Bound) -> int:
    """The first exponent with which every mantissa is above the bound."""
    exponent = least.value.adjusted()
    is_power = least.value == Decimal(1).scaleb(exponent)
    return exponent if is_power and least.is_inclusive else exponent + 1


def _exponent_to(most: Bound) -> int:
    """The last exponent with which every mantissa is below the bound."""
    return most.value.adjusted() - 1 if most.value else -MAX_EXPONENT - 1


def _exponents(lowest: int, highest: int) -> str:
    """Whole numbers from `lowest` to `highest`, perhaps with a zero before them; empty: none."""
    parts = []
    if lowest <= min(highest, -1):
        parts.append(f'"-" /0?/ {_natural(max(1, -highest), min(MAX_EXPONENT, -lowest))}')
    if max(lowest, 0) <= highest:
        parts.append(f'"+"? /0?/ {_natural(max(lowest, 0), min(MAX_EXPONENT, highest))}')
    return " | ".join(parts)


def _natural(lowest: int, highest: int) -> str:
    conditions = [f"/{_NATURAL}/"]
    conditions += [_alternatives(_at_least(Bound(Decimal(lowest))))] if lowest > 0 else []
    conditions += [_alternatives(_at_most(Bound(Decimal(highest))))] if highest < MAX_EXPONENT else []
    return f"({' & '.join(conditions)})"


def _at_most(bound: Bound) -> Iterator[str]:
    """Regular expressions that together match every decimal up to the bound, and no other that is well formed."""
    whole, fraction = _digits(bound.value)
    if len(whole) > 1:
        yield rf"[0-9]{{1,{len(whole) - 1}}}(\.[0-9]+)?"
    for at, digit in enumerate(whole):
        if digit > "0":
            yield rf"{whole[:at]}[0-{int(digit) - 1}][0-9]{{{len(whole) - at - 1}}}(\.[0-9]+)?"
    for at, digit in enumerate(fraction):
        yield rf"{whole}\.{fraction[:at]}" if at else whole
        if digit > "0":
            yield rf"{whole}\.{fraction[:at]}[0-{int(digit) - 1}][0-9]*"
    if bound.is_inclusive:
        yield rf"{whole}\.{fraction}0*" if fraction else rf"{whole}(\.0+)?"


def _at_least(bound: Bound) -> Iterator[str]:
    """Regular expressions that together match every decimal from the bound on, and no other that is well formed."""
    whole, fraction = _digits(bound.value)
    yield rf"[0-9]{{{len(whole) + 1},}}(\.[0-9]+)?"
    for at, digit in enumerate(whole):
        if digit < "9":
            yield rf"{whole[:at]}[{int(digit) + 1}-9][0-9]{{{len(whole) - at - 1}}}(\.[0-9]+)?"
    for at, digit in enumerate(fraction):
        if digit < "9":
            yield rf"{whole}\.{fraction[:at]}[{int(digit) + 1}-9][0-9]*"
    if not bound.is_inclusive:
        yield rf"{whole}\.{fraction}[0-9]*[1-9][0-9]*"
    else:
        yield rf"{whole}\.{fraction}[0-9]*" if fraction else rf"{whole}(\.[0-9]+)?"


def _digits(value: Decimal) -> tuple[str, str]:
    """The digits before the point and those after it, without zeros at the end; of zero also where it is negative."""
    whole, _, fraction = f"{abs(value):f}".partition(".")
    return whole, fraction.rstrip("0")


def _alternatives(expressions: Iterator[str]) -> str:
    return "(" + " | ".join(f"/{expression}/" for expression in expressions) + ")"


def _greater(one: Bound | None, other: Bound) -> Bound:
    """The bound that leaves less above it."""
    if one is None or (one.value, not one.is_inclusive) < (other.value, not other.is_inclusive):
        return other
    return one


def _negated(bound: Bound | None) -> Bound | None:
    return None if bound is None else bound.negated()
