"""A grammar for the engine from a schema, in which every number ends and combined objects are closed.

As the library reads a schema, digits follow a point without end, and no keyword of JSON Schema forbids it. So what
holds numbers is written here as rules, in the library's notation (a dialect of Lark), and only parts without any are
left to it (`%json`). Knows how JSON is written. Parts are taken apart in `alternatives`, texts kept in `lark`.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from corral.messages import Json
from corral.schemas.alternatives import Alternative, Alternatives, TooComplex
from corral.schemas.lark import Rules
from corral.schemas.numerals import Bound, Interval, terminal
from corral.schemas.pointers import keys_of
from corral.schemas.policy import INTEGER_END, ON_ONE_LINE

MEMBERS_AT_ONCE = 20
"""Optional members of an object that share a rule, so that the chain of rules stays short."""

_ANY_NAME = r'/"([^"\\\x00-\x1F\x7F]|\\(["\\\/bfnrt]|u[a-fA-F0-9]{4}))*"/'


def write(schema: dict[str, Json], *, closes_objects: bool) -> str:
    """The grammar of a schema as `policy` leaves it; empty where the library reads it as well, or where it cannot be.

    `closes_objects`: an object that lists properties and says nothing of others has no others.
    """
    if _is_simple(schema):
        return ""
    try:
        return _Writer(schema.get("$defs", {}), closes_objects).write(schema)
    except (TooComplex, RecursionError):
        return ""


def _is_simple(part: Json) -> bool:
    """Whether the library reads a part as it is meant: it holds no number, nothing open, nothing combined."""
    if isinstance(part, bool):
        return not part
    if "enum" in part or "const" in part:
        return "$ref" not in str(part)
    if not part.keys().isdisjoint(("$ref", "allOf")) or ("anyOf" in part and not part.keys() <= {"anyOf", "$defs"}):
        return False
    if "anyOf" in part:
        return all(map(_is_simple, part["anyOf"]))
    kinds = part.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if not kinds or "number" in kinds or ("integer" in kinds and "multipleOf" in part):
        return False
    if "array" in kinds and not all(map(_is_simple, (part.get("items", True), *part.get("prefixItems", ())))):
        return False
    return "object" not in kinds or _is_simple_object(part)


def _is_simple_object(part: dict[str, Any]) -> bool:
    members = [*part.get("properties", {}).values(), *part.get("patternProperties", {}).values()]
    return all(map(_is_simple, (*members, part.get("additionalProperties", True))))


class _Writer:
    def __init__(self, definitions: Mapping[str, Json], closes_objects: bool) -> None:
        self._definitions = definitions
        self._alternatives = Alternatives(definitions)
        self._closes_objects = closes_objects
        self._rules = Rules()
        self._symbols: dict[bytes, str | None] = {}
        """The names of rules by the schemas they are for, `s` or `d` with a number; None: nothing fits it."""
        self._unwritten: list[str] = []
        """Definitions without a rule yet: written one after the other, since a chain of them may be long."""

    def write(self, schema: dict[str, Json]) -> str:
        root = self._symbol({keyword: value for keyword, value in schema.items() if keyword != "$defs"})
        while self._unwritten:
            name = self._unwritten.pop()
            body = self._body(self._definitions[name])
            if body is None:
                raise TooComplex
            self._rules.add(name, body)
        if root is None:
            raise TooComplex
        return self._rules.text(root)

    def _symbol(self, part: Json) -> str | None:
        """The name of the rule for a part; None where nothing fits."""
        key = msgspec.json.encode(part)
        if isinstance(part, dict) and part.keys() == {"$ref"}:
            name = keys_of(part["$ref"])[1]
            if key not in self._symbols:
                self._symbols[key] = name
                self._unwritten.append(name)
            return name
        if key not in self._symbols:
            name = self._symbols[key] = f"s{len(self._symbols)}"
            body = self._body(part)
            if body is None:
                self._symbols[key] = None
            else:
                self._rules.add(name, body)
        return self._symbols[key]

    def _body(self, part: Json) -> str | None:
        if _is_simple(part):
            return None if part is False else self._json(part)
        if isinstance(part, dict) and part.keys() == {"anyOf"}:
            return self._choice(part["anyOf"])
        try:
            options = self._alternatives.of(part)
            if isinstance(part, dict) and not part.keys().isdisjoint(("$ref", "anyOf", "allOf")):
                options = [one for one in options if not _is_simple(one) or self._alternatives.is_possible(one)]
        except TooComplex:
            return self._json(part)
        return self._alternative(options[0]) if len(options) == 1 else self._choice(options)

    def _choice(self, options: Sequence[Json]) -> str | None:
        symbols = [symbol for option in options if (symbol := self._symbol(option)) is not None]
        return " | ".join(dict.fromkeys(symbols)) or None

    def _alternative(self, part: Alternative) -> str | None:
        match part.get("type"):
            case "number" | "integer" if "multipleOf" in part:
                return self._multiples(part)
            case "number":
                return self._number(part)
            case "array":
                return self._array(part)
            case "object":
                return self._object(part)
            case _:
                return self._json(part)

    def _json(self, part: Json) -> str:
        """A part that is left to the library."""
        inner = {**({} if part is True else part), **ON_ONE_LINE}
        if b'"$ref"' in msgspec.json.encode(part):
            inner["$defs"] = self._definitions
        return "%json " + msgspec.json.encode(inner).decode()

    def _number(self, part: Alternative) -> str | None:
        interval = _interval(part)
        return None if interval.magnitudes() == (None, None) else self._rules.terminal(terminal(interval))

    def _multiples(self, part: Alternative) -> str | None:
        """The library knows none below zero, but with the sign apart it does."""
        written = []
        for sign, interval in zip(("", '"-" '), _interval(part).magnitudes(), strict=True):
            if interval is not None and interval.has_multiple_of(Decimal(str(part["multipleOf"]))):
                multiple = {"type": part["type"], "multipleOf": part["multipleOf"], **_limits(interval)}
                written.append(sign + self._rules.rule(self._json(multiple)))
        return " | ".join(written) or None

    def _array(self, part: Alternative) -> str | None:
        least, most = part.get("minItems", 0), part.get("maxItems")
        first: list[str] = []
        rest = self._symbol(part.get("items", True))
        for item in part.get("prefixItems", ())[:most]:
            symbol = self._symbol(item)
            if symbol is None:
                rest = None
                break
            first.append(symbol)
        if len(first) < least and rest is None:
            return None
        following = "" if rest is None else self._more(rest, least - len(first), most and most - len(first))
        if most == 0 or (rest is None and not first):
            return '"[" "]"'
        if not first:
            return f'"[" {self._some(str(rest), least, most)} "]"'
        for at in reversed(range(len(first))):
            following = f"{_COMMA if at else ''} {first[at]} {following}"
            following = following if at < least else f"{self._rules.rule(following)}?"
        return f'"[" {following} "]"'

    def _object(self, part: Alternative) -> str | None:
        if "patternProperties" in part:
            return self._map(part)
        properties, others = part.get("properties", {}), part.get("additionalProperties", True)
        required = dict.fromkeys(part.get("required", ()))
        named = {**properties, **{name: others for name in required if name not in properties}}
        least, most = part.get("minProperties", 0), part.get("maxProperties")
        if (least or most is not None) and named.keys() > required.keys():
            return self._json(part)
        if self._closes_objects and properties and len(named) >= least and "additionalProperties" not in part:
            others = False
        members = []
        for name, member in named.items():
            symbol = self._symbol(member)
            if symbol is not None:
                members.append((f"{_literal(_quoted(name))} {_COLON} {symbol}", name in required))
            elif name in required:
                return None
        other = self._symbol(others)
        pair = "" if other is None else self._rules.rule(f"{self._name_but(named)} {_COLON} {other}")
        if most is not None and most < len(members):
            return None
        return self._braces(members, pair, least - len(members), None if most is None else most - len(members))

    def _map(self, part: Alternative) -> str:
        """An object whose properties are known by patterns."""
        if part.get("properties") or part.get("required") or part.get("additionalProperties") is not False:
            return self._json(part)
        pairs = []
        for pattern, member in part["patternProperties"].items():
            symbol = self._symbol(member)
            if symbol is not None:
                name = self._rules.rule(self._json({"type": "string", "pattern": pattern}))
                pairs.append(f"{name} {_COLON} {symbol}")
        pair = self._rules.rule(" | ".join(pairs)) if pairs else ""
        return self._braces([], pair, part.get("minProperties", 0), part.get("maxProperties"))

    def _name_but(self, taken: Mapping[str, Json]) -> str:
        """A property's name that is none of those taken."""
        if not taken:
            return self._rules.rule(self._json({"type": "string"}))
        return self._rules.terminal(f"{_ANY_NAME} & ~({' | '.join(_literal(_quoted(name)) for name in taken)})")

    def _braces(self, members: Sequence[tuple[str, bool]], pair: str, least: int, most: int | None) -> str:
        """An object of members in their order, each required or not, and `least` to `most` times some other pair."""
        leading = next((at for at, (_, is_required) in enumerate(members) if is_required), len(members))
        first = [member for member, _ in members[: leading + 1]]
        following = [f"{_COMMA} {member}" if needed else f"({_COMMA} {member})?" for member, needed in members]
        rest = " ".join([*following[leading + 1 :], self._more(pair, least, most) if pair else ""])
        if leading == len(members):
            options = [self._some(pair, least, most) or _NOTHING if pair else _NOTHING]
        else:
            rest = self._rules.rule(rest or _NOTHING) if leading else rest
            options = [f"{first.pop()} {rest}"]
            rest = f"{following[leading]} {rest}"
        for at in reversed(range(leading)):
            options.append(f"{first[at]} {rest}")
            rest = f"{following[at]} {rest}"
            if at % MEMBERS_AT_ONCE == 0:
                rest = self._rules.rule(rest)
        return f'"{{" ({" | ".join(reversed(options))}) "}}"'

    def _more(self, symbol: str, least: int, most: int | None) -> str:
        """`least` to `most` of it, a comma before each."""
        if most == 0:
            return ""
        return f"({_COMMA} {symbol}){_times(least, most)}"

    def _some(self, symbol: str, least: int, most: int | None) -> str:
        """`least` to `most` of it, commas between them."""
        if most == 0:
            return ""
        some = f"{symbol} {self._more(symbol, least - 1, None if most is None else most - 1)}"
        return some if least > 0 else f"({some})?"


def _times(least: int, most: int | None) -> str:
    least = max(least, 0)
    return "*" if least == 0 and most is None else f"{{{least},{'' if most is None else most}}}"


def _interval(part: Alternative) -> Interval:
    """The bounds of a number's schema, of two the narrower one."""
    lower = [Bound(Decimal(str(part[key])), key == "minimum") for key in ("minimum", "exclusiveMinimum") if key in part]
    upper = [Bound(Decimal(str(part[key])), key == "maximum") for key in ("maximum", "exclusiveMaximum") if key in part]
    return Interval(
        max(lower, key=lambda bound: (bound.value, not bound.is_inclusive), default=None),
        min(upper, key=lambda bound: (bound.value, bound.is_inclusive), default=None),
    )


def _limits(interval: Interval) -> dict[str, Json]:
    """The keywords of an interval; one without an end gets that of whole numbers."""
    least, most = interval.least, interval.most
    limits: dict[str, Json] = {"maximum": INTEGER_END}
    if most is not None:
        limits = {"maximum" if most.is_inclusive else "exclusiveMaximum": _as_json(most.value)}
    if least is not None:
        limits["minimum" if least.is_inclusive else "exclusiveMinimum"] = _as_json(least.value)
    return limits


def _as_json(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _literal(text: str) -> str:
    """A text as a grammar has it."""
    return msgspec.json.encode(text).decode().replace("\x7f", r"\u007f")


_NOTHING = _literal("")
_COMMA, _COLON = (_literal(ON_ONE_LINE["x-guidance"][separator]) for separator in ("item_separator", "key_separator"))
