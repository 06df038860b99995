"""What a model's weights consist of, by layers, as its files' tensors say."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from corral.engine.placement import Parts
from corral.models.model import Model

_LAYER = re.compile(r"blk\.(\d{1,4})\.")
_EXPERTS = re.compile(r"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps\.")
"""What llama.cpp leaves in main memory with `--n-cpu-moe`."""

_INPUT = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})
"""What always lies in main memory."""

_KEPT = 64
"""Models whose parts are remembered: they are wanted at each request, and a file's bytes never change."""


class KnownParts:
    """The parts of models, counted once each."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Path, ...], Parts | None] = OrderedDict()

    def of(self, model: Model) -> Parts | None:
        """None for a model without layers, as far as its file says."""
        files = (model.weights, *model.projectors, *model.adapters)
        if files not in self._known:
            self._known[files] = parts(model)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[files]


def parts(model: Model) -> Parts | None:
    """By the tensors of the weights' file. Of one in several files, which says nothing of the others, each layer is
    taken to be as large as any."""
    gguf, count = model.gguf, model.gguf.block_count or 0
    if not count:
        return None
    width, forward = gguf.embedding_length or 0, gguf.integer("feed_forward_length") or 0
    beside, per_token = _sizes((*model.projectors, *model.adapters)), 16 * (width + forward)
    if gguf.split is not None:
        each = max(0, model.size - beside) // (count + 1)
        return Parts((each,) * count, (0,) * count, each, beside, per_token)
    layers, experts = [0] * count, [0] * count
    output = embedding = 0
    has_output = False
    for tensor in gguf.tensors:
        found = _LAYER.match(tensor.name)
        if found and int(found[1]) < count:
            (experts if _EXPERTS.search(tensor.name) else layers)[int(found[1])] += tensor.size
        elif tensor.name in _INPUT:
            embedding = tensor.size if tensor.name == "token_embd.weight" else embedding
        else:
            output += tensor.size
            has_output = has_output or tensor.name == "output.weight"
    # one matrix for both ends is copied to the device
    output += 0 if has_output else embedding
    return Parts(tuple(layers), tuple(experts), output, beside, per_token)


def _sizes(files: Sequence[Path]) -> int:
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total
