"""LoRA adapters of safetensors into GGUF, for a model that is given as GGUF. How they are stored is `lora`'s business.

Only architectures that `architectures` converts: what becomes of a matrix of theirs has to become of what is added to
it. Source: spec cli §18.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from msgspec import Struct

from corral import gguf, published
from corral.background import Report
from corral.convert import arrays, lora
from corral.convert.arrays import Array
from corral.convert.lora import Pair
from corral.convert.recipe import interleaved
from corral.convert.safetensors import shortened
from corral.errors import DiskFull, ModelFileError, StoreError
from corral.gguf import GGUF
from corral.gguf.file import Tensor
from corral.gguf.lora import ALPHA, EMBEDDING, check, check_pair, check_scale
from corral.gguf.output import HashedFile, Written
from corral.gguf.types import ValueType
from corral.gguf.writer import encode, layout, new_tensor
from corral.messages import Progress


def convert_adapter(
    files: Mapping[str, Path], base: Path, target: Path, *, scale: float = 1.0, report: Report
) -> Written:
    """Makes the GGUF file `target` of an adapter folder's files, named as in that folder, for the model's file `base`.

    `scale` multiplies the adapter's own strength (`check_scale`). `ModelFileError` for what cannot be converted or does
    not fit the model, `StoreError` when the disk fails; `target` is then incomplete.
    """
    check_scale(scale)
    model = _Model(published.read(base).text)
    adapter = lora.read(files)
    parts = sorted((model.fitted(pair, adapter.alpha) for pair in adapter.pairs), key=lambda part: part.name)
    for one, other in pairwise(parts):
        if one.name == other.name:
            raise ModelFileError(f'the adapter changes tensor "{one.name}" twice')
    fields = {
        "general.architecture": encode(ValueType.STRING, model.architecture),
        "general.type": encode(ValueType.STRING, "adapter"),
        "adapter.type": encode(ValueType.STRING, "lora"),
        ALPHA: encode(ValueType.FLOAT32, adapter.alpha * scale),
    }
    file = layout(fields, [tensor for part in parts for tensor in part.placed()])
    try:
        with HashedFile(target) as output:
            output.write(file.header)
            for tensor, numbers in zip(file.tensors, (half for part in parts for half in part.halves()), strict=True):
                report(Progress("converting adapter", total=file.size, completed=output.size))
                output.write(np.ascontiguousarray(numbers).data)
                output.write(file.padding(tensor))
    except OSError as error:
        kind = DiskFull if error.errno == 28 else StoreError
        raise kind(f'cannot write "{target}": {error.strerror}') from error
    check(gguf.read(target), model.base)  # what holds for adapters of others holds for ours
    return Written(output.digest, output.size)


_ARCHITECTURES = frozenset({"gemma", "gemma2", "gemma3", "granite", "llama", "phi3", "qwen2", "qwen3", "qwen3moe"})
_PAIRS_APART = frozenset({"granite", "llama"})
"""Architectures of which queries and keys stand in another order in GGUF (spec cli §18)."""

_TEXT_PART = re.compile(r"^(?:model\.)?language_model\.(?:model\.)?")
"""What stands in front of the text model's modules where a model sees, too."""


class _Part(Struct, frozen=True):
    """A pair with its place in the new file: `name` is the model's tensor, `factor` what `lora_b` is multiplied by.

    `head_width`: elements of a head whose rows are put in the engine's order; 0: they stay.
    """

    name: str
    pair: Pair
    factor: float
    head_width: int

    def placed(self) -> list[Tensor]:
        """Its two tensors."""
        down, up = self._kinds()
        rows, columns = self.pair.down.shape
        shape = (rows, columns) if self.name == EMBEDDING else (columns, rows)
        return [
            new_tensor(f"{self.name}.lora_a", down, shape),
            new_tensor(f"{self.name}.lora_b", up, self.pair.up.shape[::-1]),
        ]

    def halves(self) -> Iterator[Array]:
        """Their numbers."""
        down, up = self.pair.down.read(), self.pair.up.read()
        down_kind, up_kind = self._kinds()
        down_dtype, up_dtype = self.pair.down.source.dtype, self.pair.up.source.dtype
        found = arrays.cast(down.T if self.name == EMBEDDING else down, down_dtype, down_kind)
        arrays.check_finite(np.ascontiguousarray(found), down_kind, self.pair.down.name, down, down_dtype)
        yield found
        if self.head_width:
            up = interleaved(self.head_width).function(up)
        found = arrays.cast(up, up_dtype, up_kind)
        if self.factor != 1:
            found = np.asarray(found * np.float32(self.factor), "<f4")
        arrays.check_finite(np.ascontiguousarray(found), up_kind, self.pair.up.name, up, up_dtype)
        yield found

    def _kinds(self) -> tuple[str, str]:
        """The types of the two: 16-bit floats stay where nothing is computed with them."""
        down, up = ("F16" if half.source.dtype == "F16" else "F32" for half in (self.pair.down, self.pair.up))
        return down, up if self.factor == 1 else "F32"


class _Model:
    """The base model's tensors, and the names of them in its own library."""

    def __init__(self, base: GGUF) -> None:
        number = next((key for key, name in MODEL_ARCH_NAMES.items() if name == base.architecture), None)
        if base.architecture not in _ARCHITECTURES or number is None or base.block_count is None:
            raise ModelFileError(f'unsupported architecture "{base.architecture}" of the adapter\'s model')
        self.base = base
        self.architecture = base.architecture
        self._names = get_tensor_name_map(number, base.block_count)
        self._shapes = {tensor.name: tensor.shape for tensor in base.tensors}
        self._head_width = _head_width(base) if base.architecture in _PAIRS_APART else 0

    def fitted(self, pair: Pair, alpha: float) -> _Part:
        """The pair where it belongs; `alpha` is what the whole file will have."""
        name = self._name(pair.module)
        shape = self._shapes.get(name or "")
        if name is None:
            raise ModelFileError(
                f'the adapter changes "{shortened(pair.module)}", which is no matrix of its own in a model of '
                f'architecture "{self.architecture}"'
            )
        if shape is None:
            raise ModelFileError(f'the adapter changes tensor "{name}", which the model does not have')
        rows, columns = pair.down.shape
        down = (rows, columns) if name == EMBEDDING else (columns, rows)
        check_pair(name, shape, down, pair.up.shape[::-1])
        width = self._head_width if name.endswith((".attn_q.weight", ".attn_k.weight")) else 0
        if width and pair.up.shape[0] % width:
            raise ModelFileError(f'tensor "{name}" of the model does not consist of heads of {width} elements')
        return _Part(name, pair, pair.alpha / alpha, width)

    def _name(self, module: str) -> str | None:
        plain = _TEXT_PART.sub("model.", module)
        for candidate in (plain, f"model.{plain}"):
            found = self._names.get_name(candidate + ".weight", (".weight",))
            if found is not None:
                return str(found)
        return None


def _head_width(base: GGUF) -> int:
    heads = max(base.per_layer("attention.head_count") or [0])
    width = base.integer("attention.key_length") or ((base.embedding_length or 0) // heads if heads else 0)
    if width < 2 or width % 2:
        raise ModelFileError(f"the model has heads of {width} elements, which cannot be turned in pairs")
    return width
