"""What an examination finds: a value."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "note", "wrong"]
"""All is well; all is well, but there is something to know; there is something to mend."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy`: what to do about it, with a command where there is one."""

    subject: str
    level: Level
    text: str
    remedy: str = ""
