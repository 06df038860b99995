"""What loads taught about estimates: for each model, by how much the engine's own figures differed. One small file."""

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

from corral.engine.base import RunnerSpec
from corral.engine.placement import Bytes, Ratios, compared
from corral.system import private_files

log = logging.getLogger(__name__)

_MOST_MODELS = 256
_MOST_BYTES = 1 << 20


class Figures:
    """The ratios of models, in memory and in a file, where it has a path. What cannot be read is forgotten.

    `engine` is what models are loaded with now, as a word: what one engine holds says nothing of another.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.engine = ""
        self._path = path
        self._known: dict[str, Ratios] = {}
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            if path is not None:
                with open(path, "rb") as opened:
                    self._known = msgspec.json.decode(opened.read(_MOST_BYTES), type=dict[str, Ratios])

    def of(self, spec: RunnerSpec) -> Ratios:
        """What is known of the model in this use, with the engine of now."""
        return self._known.get(_key(spec, self.engine), Ratios())

    def learn(self, spec: RunnerSpec, said: dict[str, Bytes], engine: str) -> bool:
        """Takes what an engine said after a load by this specification; whether anything is new by a twentieth."""
        if spec.placement is None or not spec.placement.shares:
            return False
        key = _key(spec, engine)
        before = self._known.get(key, Ratios())
        after = compared(spec.placement.shares, said, before)
        self._known.pop(key, None)
        self._known[key] = after
        while len(self._known) > _MOST_MODELS:
            self._known.pop(next(iter(self._known)))
        return any(abs(getattr(after, name) / getattr(before, name) - 1) > 0.05 for name in Ratios.__struct_fields__)

    def save(self) -> None:
        """Writes the file, in one step. Blocks; what goes wrong is logged: the figures are a help, no more."""
        if self._path is None:
            return
        try:
            private_files.write(self._path, msgspec.json.encode(dict(self._known)))
        except OSError as error:
            log.info("the engine's figures are not kept: %s", error)


def _key(spec: RunnerSpec, engine: str) -> str:
    """By the weights' name, which is their digest, and what changes the sizes of buffers beside the context."""
    return f"{Path(spec.model).name} {spec.mode} {spec.cache_type} {spec.flash_attention} {engine}"
