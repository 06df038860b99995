"""Go templates of well-known families, for models that bring only a simple Jinja template (spec cli §14.6).

One NAME.gotmpl a family, and its row in families.json: the marks its Jinja text must have, those it may have besides,
and the stop words that go with it. A Jinja text that does more than write turns (tools, thinking, documents) is not
recognised: the engine runs it as it is.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """A family's Go template, under the name Ollama knows it by, with its stop words."""

    name: str
    text: str
    stop: tuple[str, ...]


def recognise(jinja: str) -> KnownTemplate | None:
    """The family whose turns this Jinja text writes, when it writes nothing else."""
    if len(jinja) > MAX_LENGTH or _MORE_THAN_TURNS.search(jinja):
        return None
    text = jinja.replace('"', "'").replace("\n", "\\n")
    tokens = set(_TOKEN.findall(jinja))
    for family in _families():
        if all(mark in text for mark in family.marks) and tokens <= family.tokens:
            return family.template
    return None


MAX_LENGTH = 4096
"""Characters. A text that only writes turns has a few hundred, with a default system text a thousand or two."""

_MORE_THAN_TURNS = re.compile(r"tool|think|reasoning|document|citation|function|python|json|strftime")

_TOKEN = re.compile(r"<[|｜]?/?[A-Za-z][^\s<>'\"{}]{0,40}>|<</?SYS>>|\[/?[A-Z_]{2,}\]")


@dataclass(frozen=True, slots=True)
class _Family:
    template: KnownTemplate
    marks: tuple[str, ...]
    tokens: frozenset[str]
    """All special tokens its Jinja text may mention."""


@cache
def _families() -> tuple[_Family, ...]:
    folder = resources.files(__name__)
    rows = json.loads((folder / "families.json").read_text("utf-8"))
    return tuple(
        _Family(
            KnownTemplate(name, (folder / f"{name}.gotmpl").read_bytes().decode(), tuple(row["stop"])),
            tuple(row["marks"]),
            frozenset((*row["marks"], *row.get("may", ()), "<s>", "</s>")),
        )
        for name, row in rows.items()
    )
