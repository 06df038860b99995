"""Writes a checkpoint as a GGUF file: plan, tokenizer, then tensor after tensor. Knows no architecture."""

import errno
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from corral import gguf
from corral.background import Report
from corral.convert import architectures, checkpoint, pooling, quantized, source, tokenizers
from corral.convert.arrays import Array
from corral.convert.draft import Plan
from corral.convert.recipe import Given, Recipe
from corral.convert.safetensors import StoredTensor, shortened
from corral.convert.source import Source
from corral.errors import DiskFull, ModelFileError, StoreError
from corral.gguf.file import Tensor
from corral.gguf.output import HashedFile, Written
from corral.gguf.writer import Layout, layout, new_tensor
from corral.messages import Progress

Part = tuple[Recipe | Given, tuple[Source, ...]]
"""A tensor of the new file and the tensors it is made of."""


def convert(files: Mapping[str, Path], target: Path, *, report: Report) -> Written:
    """Makes the GGUF file `target` of a checkpoint folder's files, named as in that folder.

    `ModelFileError` for what cannot be converted, `StoreError` when the disk fails; `target` is then incomplete.
    """
    found = checkpoint.read(files)
    plan = architectures.plan(found)
    quantized.check(found.hyperparameters)
    parts = _matched(plan, checkpoint.read_tensors(files))
    fields = {
        **plan.fields,
        **pooling.fields(found, plan.architecture),
        **tokenizers.read(files, found.config, plan.vocabulary_size),
    }
    file = layout(fields, [_placed(*part) for part in parts])
    try:
        with HashedFile(target) as output:
            _write(file, parts, output, report)
    except OSError as error:
        kind = DiskFull if error.errno == errno.ENOSPC else StoreError
        raise kind(f'cannot write "{target}": {error.strerror}') from error
    gguf.read(target)  # what holds for files of others holds for ours
    return Written(output.digest, output.size)


def _write(file: Layout, parts: Iterable[Part], output: HashedFile, report: Report) -> None:
    output.write(file.header)
    for tensor, (recipe, sources) in zip(file.tensors, parts, strict=True):
        for piece in _pieces(recipe, sources, tensor.type):
            report(Progress("converting model", total=file.size, completed=output.size))
            output.write(np.ascontiguousarray(piece).data)
        output.write(file.padding(tensor))


def _pieces(recipe: Recipe | Given, sources: tuple[Source, ...], kind: str) -> Iterable[Array]:
    if isinstance(recipe, Given):
        return [np.array(recipe.values, "<f4")]
    return recipe.slices(sources, kind)


def _placed(recipe: Recipe | Given, sources: tuple[Source, ...]) -> Tensor:
    if isinstance(recipe, Given):
        return new_tensor(recipe.name, "F32", (len(recipe.values),))
    return new_tensor(recipe.name, recipe.kind(sources), recipe.target_shape)


def _matched(plan: Plan, stored: Mapping[str, StoredTensor]) -> list[Part]:
    """Each planned tensor with those it is made of: all that are needed are there, of the shape the configuration
    gives them, and none is there that the model would not use.
    """
    names: dict[str, str] = {}
    for name in stored:
        if (plain := _renamed(name, plan)) in names:
            raise ModelFileError(f"duplicate tensor name '{shortened(plain)}' was found for this model")
        names[plain] = name
    parts: list[Part] = []
    used: set[str] = set()
    for recipe in plan.tensors:
        if isinstance(recipe, Given):
            parts.append((recipe, ()))
        elif recipe.required or recipe.sources[0] in names:
            parts.append((recipe, tuple(_source(name, recipe, names, stored) for name in recipe.sources)))
            used.update(recipe.sources)
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in plan.ignored))
    for plain, name in names.items():
        if plain not in used and not ignored.fullmatch(plain) and not source.is_scale(name, stored):
            raise ModelFileError(f'tensor "{shortened(name)}" has no place in a model of this configuration')
    return parts


def _source(plain: str, recipe: Recipe, names: Mapping[str, str], stored: Mapping[str, StoredTensor]) -> Source:
    found = source.find(stored, names[plain]) if plain in names else None
    if found is None:
        raise ModelFileError(f'tensor "{plain}" is missing')
    if found.shape != recipe.shape:
        shapes = f"{list(found.shape)}, by the configuration {list(recipe.shape)}"
        raise ModelFileError(f'tensor "{shortened(found.tensor.name)}" has the shape {shapes}')
    return found


def _renamed(name: str, plan: Plan) -> str:
    for old, new in plan.renamed:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
