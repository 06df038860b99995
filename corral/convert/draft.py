"""The plan of a new file as an architecture's module puts it together: keys, and a recipe for each tensor.

Names of tensors come from the `gguf` library, which knows what each architecture calls them.
"""

from collections.abc import Sequence

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSOR, TENSOR_NAMES, get_tensor_name_map
from gguf.constants import Keys
from msgspec import Struct

from corral.convert.recipe import Change, Given, Recipe
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode

_F16 = 1
"""The file type that Ollama's conversions declare, whichever 16-bit floats are inside."""

_MAX_STACKED = 1 << 18
"""Tensors of experts: some times as many as the largest models have."""


class Plan(Struct, frozen=True):
    """A file to be made. `architecture` is its name in GGUF; `fields` are encoded as `gguf.writer` takes them.

    `renamed`: beginnings of the checkpoint's names, and what they become before they are looked up. `ignored`: patterns
    of names that the model does without.
    """

    architecture: str
    fields: dict[str, bytes]
    tensors: tuple[Recipe | Given, ...]
    vocabulary_size: int
    renamed: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()


class Draft:
    """A plan in the making; `layers` is the number of blocks, which bounds the names of tensors."""

    def __init__(self, architecture: MODEL_ARCH, layers: int) -> None:
        self._architecture = MODEL_ARCH_NAMES[architecture]
        self._names = get_tensor_name_map(architecture, layers)
        self._fields: dict[str, bytes] = {}
        self._tensors: list[Recipe | Given] = []
        self._stacked = 0
        self.set_text(Keys.General.ARCHITECTURE, self._architecture)
        self.set_text(Keys.General.TYPE, "model")
        self.set_integer(Keys.General.FILE_TYPE, _F16)
        self.set_integer(Keys.LLM.BLOCK_COUNT, layers)

    def set_integer(self, key: str, value: int) -> None:
        self._set(key, encode(ValueType.UINT32, value))

    def set_number(self, key: str, value: float) -> None:
        self._set(key, encode(ValueType.FLOAT32, value))

    def set_flag(self, key: str, value: bool) -> None:
        self._set(key, encode(ValueType.BOOL, value))

    def set_text(self, key: str, value: str) -> None:
        self._set(key, encode(ValueType.STRING, value))

    def tensor(self, source: str, *shape: int, change: Change | None = None, required: bool = True) -> None:
        """A tensor that comes from one of the checkpoint."""
        self._tensors.append(Recipe(self._name(source), (source,), shape, change, required))

    def stack(self, merged: str, sources: Sequence[str], *shape: int) -> None:
        """One tensor of many experts' tensors; `merged` is the name that the `gguf` library has for all of them."""
        self._stacked += len(sources)
        if self._stacked > _MAX_STACKED:
            raise ModelFileError(f"the configuration asks for more than {_MAX_STACKED} tensors of experts")
        self._tensors.append(Recipe(self._name(merged), tuple(sources), shape, stacked=True))

    def given(self, tensor: MODEL_TENSOR, values: Sequence[float]) -> None:
        """A vector that was computed."""
        self._tensors.append(Given(TENSOR_NAMES[tensor] + ".weight", tuple(values)))

    def plan(
        self, vocabulary_size: int, *, renamed: tuple[tuple[str, str], ...] = (), ignored: tuple[str, ...] = ()
    ) -> Plan:
        """The finished plan."""
        return Plan(self._architecture, dict(self._fields), tuple(self._tensors), vocabulary_size, renamed, ignored)

    def _set(self, key: str, value: bytes) -> None:
        self._fields[key.format(arch=self._architecture)] = value

    def _name(self, source: str) -> str:
        name = self._names.get_name(source, (".weight", ".bias"))
        assert name is not None, f"gguf has no name for {source}"
        return str(name)
