"""Which model an engine is tried with: a named one, a GGUF file, or the smallest of the store that writes text."""

import os
from collections.abc import Iterator
from pathlib import Path

from corral.config import Config
from corral.errors import CorralError, NotFound
from corral.models.model import Model
from corral.names import parse
from corral.store import Store


def file_of(config: Config, given: str = "") -> Path:
    """The weights' file; blocking. `given`: a name or a path; empty: chosen here.

    `NotFound`, and what a broken model raises.
    """
    if given.endswith(".gguf") or (os.sep in given and Path(given).expanduser().is_file()):
        path = Path(given).expanduser().absolute()
        if not path.is_file():
            raise NotFound(f'there is no file "{path}"')
        return path
    store = Store(config.models)
    try:
        if given:
            model = Model(store.manifest(parse(given)), store)
            if not _is_usable(model):
                raise NotFound(f'"{given}" is no model that an engine can be tried with: it has to write text')
            return model.weights
        found = next(_usable(store), None)
    finally:
        store.close()
    if found is None:
        raise NotFound("there is no model to try an engine with\nfetch one: corral pull smollm2:135m")
    return found.weights


def _usable(store: Store) -> Iterator[Model]:
    """The smallest first."""
    for stored in sorted(store.list(), key=lambda one: one.size):
        model = Model(stored, store)
        try:
            if _is_usable(model):
                yield model
        except CorralError:
            continue  # a broken model is none to try with


def _is_usable(model: Model) -> bool:
    """Whether it writes text, and the engine loads its file as it is."""
    return "completion" in model.capabilities and not model.file.rules and not model.adapters


def named(config: Config, given: str) -> tuple[str, Path]:
    """The full name and the weights' file of a model of the store that an engine can be tried with; blocking."""
    store = Store(config.models)
    try:
        model = Model(store.manifest(parse(given)), store)
        if not _is_usable(model):
            raise NotFound(f'"{given}" is no model that an engine can be tried with: it has to write text')
        return str(model.stored.name), model.weights
    finally:
        store.close()
