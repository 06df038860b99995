"""Go templates of well-known families, for models that bring only a simple Jinja template (spec cli §14.6).

One NAME.gotmpl a family, and its row in families.json: all that its Jinja text writes and assigns (`also`: in another
form of the same turns), what it may write and assign besides, the special tokens that the Go text has in their places,
and the stop words that go with it. A Jinja text that writes anything else, be it a line end, is not recognised: the
engine runs it as it is.
"""

import json
import re
from functools import cache
from importlib import resources

from msgspec import Struct

from corral.template.known.jinja_text import writings


class KnownTemplate(Struct, frozen=True):
    """A family's Go template, under the name Ollama knows it by, with its stop words."""

    name: str
    text: str
    stop: tuple[str, ...]


def recognise(jinja: str, *, bos: str, eos: str) -> KnownTemplate | None:
    """The family whose turns this Jinja text writes, when it writes nothing else.

    `bos`, `eos`: the texts of the model's special tokens, empty when it has none.
    """
    if len(jinja) > MAX_LENGTH:
        return None
    written = writings(jinja)
    return next((family.template for family in _families() if family.writes(written, bos, eos)), None)


MAX_LENGTH = 4096
"""Characters. A text that only writes turns has a few hundred, with a default system text a thousand or two."""


class _Family(Struct, frozen=True):
    template: KnownTemplate
    forms: tuple[frozenset[str], ...]
    """What its Jinja text always writes, once for each way to write the same turns."""
    sometimes: tuple[re.Pattern[str], ...]
    bos: str | None
    eos: str | None
    """The special tokens that its Go text writes; None where it writes none."""

    def writes(self, written: frozenset[str], bos: str, eos: str) -> bool:
        if self.bos not in (None, bos) or self.eos not in (None, eos):
            return False
        return any(form <= written and self._may_write(written - form) for form in self.forms)

    def _may_write(self, more: frozenset[str]) -> bool:
        return all(any(may.fullmatch(text) for may in self.sometimes) for text in more)


@cache
def _families() -> tuple[_Family, ...]:
    folder = resources.files(__name__)
    rows = json.loads((folder / "families.json").read_text("utf-8"))
    return tuple(
        _Family(
            KnownTemplate(name, (folder / f"{name}.gotmpl").read_bytes().decode(), tuple(row["stop"])),
            tuple(frozenset(form) for form in (row["writes"], *row.get("also", ()))),
            tuple(map(_pattern, row.get("may", ()))),
            row.get("bos"),
            row.get("eos"),
        )
        for name, row in rows.items()
    )


def _pattern(may: str) -> re.Pattern[str]:
    """`…` stands for any text within a constant."""
    return re.compile(re.escape(may).replace("…", r"(?:\\.|[^'\\])*"))
