"""A derived file as it takes shape: keys and recipes, which the rules of a family change one after the other.

Names of tensors are matched whole, never in parts: what is named right already stays.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from corral.gguf import GGUF, ValueType
from corral.gguf.file import Scalar
from corral.gguf.writer import copied_fields, encode, encode_array
from corral.published.recipe import Kept, Recipe, kept, widened

_BLOCK = re.compile(r"((?:.+\.)?blk\.)(\d+)(\..+)")
_SUFFIX = re.compile(r"(.+?)(\.weight|\.bias)")
_UNREAD = frozenset({f"tokenizer.ggml.{name}" for name in ("add_padding_token", "add_unknown_token", "eos_token_ids")})
_UNREAD_PARTS = ("vision.", "audio.", "mm.", "sam.")
"""Keys of published files, and of an architecture, that are not read in a text model."""

_NUMBER = "N"
"""Stands for a block's number in the names of renaming rules."""


class Draft:
    """Begun as a copy of the published file (`of`) or of some of its tensors only (`tower`).

    `fields` are keys with their encoded values, `recipes` tensors in the order in which they are to be written.
    """

    def __init__(self, file: GGUF, fields: Mapping[str, bytes], recipes: Iterable[Recipe]) -> None:
        self.file = file
        self.fields = dict(fields)
        self.architecture = file.architecture
        """Under which the keys stand by now."""
        self.recipes = list(recipes)
        self._first_fields = dict(fields)
        self._first_recipes = list(self.recipes)

    @classmethod
    def of(cls, file: GGUF) -> "Draft":
        """The whole file, its tensors in the order in which their bytes lie."""
        return cls(file, copied_fields(file), map(kept, sorted(file.tensors, key=lambda tensor: tensor.offset)))

    @classmethod
    def tower(cls, file: GGUF, *prefixes: str) -> "Draft":
        """The tensors whose names begin so, without any key."""
        return cls(file, {}, [recipe for recipe in cls.of(file).recipes if recipe.name.startswith(prefixes)])

    @property
    def is_changed(self) -> bool:
        """Whether the engine would read anything else than in what it was begun with."""
        return self.fields != self._first_fields or self.recipes != self._first_recipes

    # Keys

    def put(self, key: str, kind: ValueType, value: Scalar) -> None:
        """Sets a key to a value; one that is equal already stays as it is."""
        if not (self.file.types.get(key) is kind and key in self.fields and self.file.metadata[key] == value):
            self.fields[key] = encode(kind, value)

    def put_array(self, key: str, kind: ValueType, values: Sequence[Scalar]) -> None:
        """Sets a key to an array."""
        self.fields[key] = encode_array(kind, values)

    def default(self, key: str, kind: ValueType, value: Scalar) -> None:
        """Sets a key that is missing."""
        if key not in self.fields:
            self.fields[key] = encode(kind, value)

    def rename_key(self, old: str, new: str) -> None:
        """Puts a key's value under another name, unless there is one of that name."""
        if old in self.fields and new not in self.fields:
            self.fields[new] = self.fields.pop(old)

    def drop(self, *keys: str) -> None:
        for key in keys:
            self.fields.pop(key, None)

    def rename_architecture(self, old: str, new: str) -> None:
        """Another architecture, and every key of the old one under it, unless that is there already."""
        self.architecture = new
        self.put("general.architecture", ValueType.STRING, new)
        for key in list(self.fields):
            if key.startswith(f"{old}."):
                self.rename_key(key, f"{new}.{key.removeprefix(f'{old}.')}")

    def drop_unread(self) -> None:
        """Drops keys that no engine reads, which leaves room in the header for those it does."""
        ours = tuple(f"{self.architecture}.{part}" for part in _UNREAD_PARTS)
        self.fields = {
            key: value for key, value in self.fields.items() if key not in _UNREAD and not key.startswith(ours)
        }

    def text(self, key: str) -> str | None:
        """The text of a key as the published file has it."""
        value = self.file.metadata.get(key)
        return value if isinstance(value, str) else None

    def default_text(self, key: str, value: str, *, unset: tuple[str, ...] = ("", "default")) -> None:
        """Sets a text that is missing or one of those that say nothing."""
        if self.text(key) is None or self.text(key) in unset:
            self.put(key, ValueType.STRING, value)

    # Tensors

    @property
    def names(self) -> set[str]:
        return {recipe.name for recipe in self.recipes}

    def hide(self, *prefixes: str) -> None:
        """Leaves out the tensors whose names begin so."""
        self.recipes = [recipe for recipe in self.recipes if not recipe.name.startswith(prefixes)]

    def rename(self, stems: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:
        """Gives tensors new names. `N` stands for a block's number: `v.blk.N.layer_norm1` → `v.blk.N.ln1`.

        `stems` are names without `.weight` or `.bias`, which stay behind them; `names` are whole ones. A tensor whose
        new name is there already keeps its own.
        """
        there = self.names
        for position, recipe in enumerate(self.recipes):
            new = _renamed(recipe.name, stems, names or {})
            if new is not None and new not in there:
                self.recipes[position] = _named(recipe, new)

    def widen(self, wanted: Callable[[Recipe], bool]) -> None:
        """Makes F32 of the tensors that are wanted, where they are not."""
        self.recipes = [
            widened(recipe.sources[0], recipe.name)
            if recipe.tensor.type != "F32" and recipe.how == Kept() and wanted(recipe)
            else recipe
            for recipe in self.recipes
        ]

    def replace(self, name: str, *recipes: Recipe) -> None:
        """Puts others in a tensor's place."""
        at = next(number for number, recipe in enumerate(self.recipes) if recipe.name == name)
        self.recipes[at : at + 1] = recipes

    def add(self, recipe: Recipe) -> None:
        """A tensor behind all others, unless there is one of its name."""
        if recipe.name not in self.names:
            self.recipes.append(recipe)


def _renamed(name: str, stems: Mapping[str, str], names: Mapping[str, str]) -> str | None:
    """The new name of a tensor; None where no rule has one."""
    block = _BLOCK.fullmatch(name)
    general = f"{block[1]}{_NUMBER}{block[3]}" if block else name
    new = names.get(general)
    if new is None and (parts := _SUFFIX.fullmatch(general)) and parts[1] in stems:
        new = stems[parts[1]] + parts[2]
    if new is None or block is None:
        return new
    return new.replace(f"blk.{_NUMBER}.", f"blk.{block[2]}.", 1)


def _named(recipe: Recipe, name: str) -> Recipe:
    tensor = recipe.tensor
    return Recipe(type(tensor)(name, tensor.type, tensor.shape, tensor.offset, tensor.size), recipe.sources, recipe.how)
