"""The text of a grammar in the library's notation, a dialect of Lark: names, right sides, and how large it may be.

Knows no schema and no JSON.
"""

import re

from corral.schemas.alternatives import TooComplex

MAX_RULES = 20_000
"""Rules of a grammar; a schema of 4,000 parts has some 12,000."""
MAX_CHARACTERS = 2_000_000
"""Of all right sides; what the library makes of them takes some hundred times as much memory."""
MAX_DEPTH = 600
"""Rules that refer to each other in a chain: with 1,600 the library overflows a stack of 8 MB and ends the process."""

_NAME = re.compile(r"\b[a-zA-Z][0-9]+\b")


class Rules:
    """Rules and terminals as they are added; `TooComplex` when they become too many."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        """The right sides of rules and terminals by their names."""
        self._terminals: dict[str, str] = {}
        """The names of terminals by their right sides."""
        self._characters = 0

    def add(self, name: str, body: str) -> None:
        self._characters += len(body)
        if len(self._rules) >= MAX_RULES or self._characters > MAX_CHARACTERS:
            raise TooComplex
        self._rules[name] = body

    def rule(self, body: str) -> str:
        """The name of a new rule, `r` with a number."""
        name = f"r{len(self._rules)}"
        self.add(name, body)
        return name

    def terminal(self, body: str) -> str:
        """The name of the terminal of a right side, `T` with a number."""
        if body not in self._terminals:
            name = self._terminals[body] = f"T{len(self._terminals)}"
            self.add(name, body)
        return self._terminals[body]

    def text(self, start: str) -> str:
        """The grammar that begins with a rule. `TooComplex` for a long chain of rules."""
        self.add("start", start)
        self._check_depth()
        return "\n".join(["%llguidance {}", *(f"{name}: {body}" for name, body in self._rules.items())]) + "\n"

    def _check_depth(self) -> None:
        """Goes through the rules as the library does: from `start`, into each name where it is met first."""
        seen = {"start"}
        unfinished = [iter(self._names_in("start"))]
        while unfinished:
            name = next(unfinished[-1], None)
            if name is None:
                unfinished.pop()
            elif name not in seen:
                seen.add(name)
                unfinished.append(iter(self._names_in(name)))
                if len(unfinished) > MAX_DEPTH:
                    raise TooComplex

    def _names_in(self, rule: str) -> list[str]:
        """The names that a rule refers to, and perhaps some that only stand in its texts."""
        body = self._rules.get(rule, "")
        return [] if body.startswith("%json") else _NAME.findall(body)
