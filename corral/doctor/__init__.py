"""What is wrong with this installation, and what to do about it: looked at from outside, with a server or without one.

A module a subject, each with functions that look and functions that judge what was seen; both give `Finding`s. Changes
nothing but a file of its own in the models folder, which it removes, and starts no engine: a child process lists what
the engine knows of itself, within a time limit.
"""

from collections.abc import Callable, Iterator, Mapping

from corral import config
from corral.config import Config, Loaded
from corral.doctor import (
    cage,
    disk,
    duplicates,
    engine,
    gpus,
    memory,
    network,
    processor,
    quarantine,
    settings,
    store,
    terminal,
)
from corral.doctor.findings import Finding, Level
from corral.engine import choice
from corral.errors import ConfigError
from corral.machine.processor import features

__all__ = ["Finding", "Level", "examine"]


def examine(*, verify: Callable[[str, int, int], None] | None = None) -> Iterator[Finding]:
    """Everything that can be said, subject by subject, as it becomes known.

    With `verify` every blob is hashed; it is called with a label, the bytes of all and the bytes that are done.
    """
    loaded: Loaded | None
    try:
        loaded, unreadable = config.load(), None
    except ConfigError as error:
        loaded, unreadable = None, error
    chosen = loaded.config if loaded else Config()
    yield from settings.examine(loaded, unreadable)
    used = choice.current(chosen)
    probe = engine.probe(used.program)
    yield from engine.examine(used, probe, features(), can_build=engine.can_build())
    yield from cage.examine(chosen)
    yield from processor.examine()
    yield from memory.examine(chosen, probe.gpus)
    yield from gpus.examine(probe, chosen)
    yield from disk.examine(chosen.models)
    yield from store.examine(chosen.models, verify)
    if loaded is not None:
        yield from duplicates.examine(chosen.models, config.tool_folders(), verify)
    yield from quarantine.examine(chosen)
    yield from network.examine(chosen)
    yield from terminal.examine()


def as_json(found: list[Finding]) -> Mapping[str, object]:
    """The whole examination as programs read it."""
    return {
        "healthy": not any(one.level == "wrong" for one in found),
        "findings": [
            {
                "subject": one.subject,
                "level": one.level,
                "text": one.text,
                **({"remedy": one.remedy} if one.remedy else {}),
            }
            for one in found
        ],
    }
