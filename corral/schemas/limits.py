"""How large a schema may be, and the counting that enforces it. Knows sizes, no keyword's meaning.

What a schema beyond each limit did to a process with 2 GB of address space, with the pinned `llguidance` and without
ours in front of it. The library's own limits (`LLParserLimits`) count what the grammar became after it was built, and
the engine runs with their defaults, so they cannot stand in for limits that keep it from being built.

| limit | without it |
|---|---|
| `MAX_BYTES` | an `enum` of a million values takes 6 s and 850 MB before the library refuses it |
| `MAX_SCHEMAS` | 7,000 alternatives take 4 s, 8,000 properties 5 s; both are accepted |
| `MAX_LEVELS` | the library refuses more than 128 levels of JSON itself; ours ends our own recursion |
| `MAX_TOTAL_LEVELS` | a chain of 1,000 references overflows the stack and ends the process |
| `MAX_VALUES` | 20,000 constant lists take 5 s and 400 MB and end in a panic of the library |
| `MAX_PATTERN` | 250 kB take 0.4 s: no harm by itself, but each pattern is compiled twice here and once by the engine |
| `MAX_PATTERNS` | 400 `patternProperties` do not come to an end within 20 s |
| `MAX_ITEMS` | `minItems` of 10⁹ and `maxItems` of 10⁷ end the process for want of memory |
| `MAX_TOTAL_ITEMS` | arrays in arrays and side by side add up to the same |
| `MAX_LENGTH` | a `minLength` of 10⁹ is accepted, and the answer would never end; 10¹² is a foreign parse error |
| `MAX_BRANCHES` | with 480 to 700 optional properties the engine gives up at the first brace of an answer |
| `MAX_COMPILED_ONE_OF` | each `oneOf` whose options may overlap costs a compilation of its own |

Nesting of parentheses and products of `allOf` and `anyOf` have no limit here: the library refuses both at once.
"""

from collections.abc import Iterable

from corral.messages import Json
from corral.schemas.draft import Place

MAX_BYTES = 256 << 10
"""Bytes of the schema as JSON."""
MAX_SCHEMAS = 4000
"""Schemas within the schema."""
MAX_LEVELS = 50
"""Schemas within each other, and lists and objects within each other in a constant."""
MAX_TOTAL_LEVELS = 800
"""Levels of the schema and of all it refers to, together: a chain of references is as deep as its parts."""
MAX_VALUES = 10_000
"""Values in all `enum`s and constants."""
MAX_PATTERN = 2000
"""Characters of a regular expression."""
MAX_PATTERNS = 100
"""Regular expressions."""
MAX_ITEMS, MAX_TOTAL_ITEMS = 4096, 20_000
"""What `minItems` and `maxItems` may count, one by one and together."""
MAX_LENGTH = 1_000_000
"""What other counts may be."""
MAX_BRANCHES = 450
"""Ways an answer may go on at one point: optional properties of an object and of its alternatives."""
MAX_COMPILED_ONE_OF = 100
"""`oneOf`s that are compiled one by one to see whether their options exclude each other."""


class Usage:
    """What a schema has used of its limits so far. Each method raises `InvalidSchema` at the place that is too much."""

    def __init__(self) -> None:
        self._schemas = self._values = self._patterns = self._items = 0
        self._levels: dict[str, int] = {}
        """The deepest level of each definition."""

    def add_schema(self, place: Place) -> None:
        self._schemas += 1
        if self._schemas > MAX_SCHEMAS:
            place.refuse(f"more than {MAX_SCHEMAS} schemas in one")
        if place.level > MAX_LEVELS:
            place.refuse(f"more than {MAX_LEVELS} schemas within each other")
        self._levels[place.definition] = max(place.level, self._levels.get(place.definition, 0))
        if sum(self._levels.values()) > MAX_TOTAL_LEVELS:
            place.refuse(f"all definitions together are more than {MAX_TOTAL_LEVELS} levels deep")

    def add_constants(self, value: Json, place: Place, keyword: str) -> None:
        """Counts a constant and all values within it, level by level."""
        level, depth = [value], 1
        while level:
            self._values += len(level)
            if self._values > MAX_VALUES:
                place.refuse(f"more than {MAX_VALUES} constant values in all", keyword)
            if depth > MAX_LEVELS:
                place.refuse(f"a value of more than {MAX_LEVELS} levels", keyword)
            level, depth = [inner for outer in level for inner in _members(outer)], depth + 1

    def add_pattern(self, pattern: str, place: Place, *keys: str) -> None:
        self._patterns += 1
        if len(pattern) > MAX_PATTERN:
            reason = f"a regular expression of {len(pattern)} characters is too long, at most {MAX_PATTERN} are read"
            place.refuse(reason, *keys)
        if self._patterns > MAX_PATTERNS:
            place.refuse(f"more than {MAX_PATTERNS} regular expressions in one schema", *keys)

    def add_items(self, count: int, place: Place, keyword: str) -> None:
        self._items += count
        if self._items > MAX_TOTAL_ITEMS:
            place.refuse(f"arrays of more than {MAX_TOTAL_ITEMS} items in all", keyword)


def _members(value: Json) -> Iterable[Json]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()
