"""LoRA adapters in GGUF: whether one fits a model, and the same adapter with another strength. Computes no weights.

An adapter has for some matrices of its model two thin ones, `NAME.lora_a` and `NAME.lora_b`, whose product is added,
times alpha divided by their rank. The engine refuses at load time what does not fit; `check` does so when the two are
put together, and names the tensor.
"""

import math
from pathlib import Path

from corral.background import Report
from corral.errors import BadRequest, ModelFileError
from corral.gguf.file import GGUF, tensor_chunks
from corral.gguf.output import HashedFile, Written
from corral.gguf.reader import read
from corral.gguf.types import ValueType
from corral.gguf.writer import copied_fields, encode, layout
from corral.messages import Progress

ALPHA = "adapter.lora.alpha"
EMBEDDING = "token_embd.weight"
"""The matrix whose `lora_a` is turned: it is looked up in, not multiplied by."""

MAX_RANK = 1 << 16

_TYPES = frozenset({"F32", "F16", "BF16", "Q8_0"})
"""Types of tensors that adapters are made in."""
_IGNORED = "_norm.weight"
"""What the names of tensors end in that the engine passes over."""


def check(adapter: GGUF, base: GGUF) -> None:
    """Raises `ModelFileError`, naming the tensor, unless the adapter is one for this model."""
    if adapter.text("general.type") != "adapter":
        raise ModelFileError("the file is not an adapter")
    kind = adapter.text("adapter.type")
    if kind != "lora":
        raise ModelFileError(f'adapters of type "{kind or "unknown"}" are not supported')
    if adapter.architecture != base.architecture:
        raise ModelFileError(
            f'the adapter is for models of architecture "{adapter.architecture}", the model is "{base.architecture}"'
        )
    shapes = {tensor.name: tensor.shape for tensor in base.tensors}
    pairs = _pairs(adapter)
    if not pairs:
        raise ModelFileError("the adapter has no tensors")
    for name, (down, up) in pairs.items():
        if name not in shapes:
            raise ModelFileError(f'the adapter changes tensor "{name}", which the model does not have')
        check_pair(name, shapes[name], down, up)


def check_pair(name: str, shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]) -> None:
    """Raises unless `lora_a` and `lora_b` of these shapes fit the model's tensor; row lengths come first."""
    whole, first, second = _in_three(shape), _in_three(down), _in_three(up)
    rank = second[0]
    if name == EMBEDDING:
        fits = first == (rank, whole[1], whole[2]) and second == (rank, whole[0], whole[2])
    else:
        fits = first == (whole[0], rank, whole[2]) and second == (rank, whole[1], whole[2])
    if not fits:
        raise ModelFileError(
            f'the adapter\'s tensors for "{name}" have the shapes {list(down)} and {list(up)}, '
            f"which do not fit the model's {list(shape)}"
        )
    if not 0 < rank <= MAX_RANK:
        raise ModelFileError(f'the adapter\'s tensors for "{name}" have the rank {rank}, not between 1 and {MAX_RANK}')


def scaled(source: Path, target: Path, scale: float, *, report: Report) -> Written:
    """Writes the adapter in `source` with `scale` times its strength to `target`; its tensors stay byte for byte.

    `ModelFileError` for an adapter that does not say its strength, `StoreError` when the disk fails. The errors of
    `check_scale`.
    """
    check_scale(scale)
    adapter = read(source)
    alpha = adapter.metadata.get(ALPHA)
    if not isinstance(alpha, float) or not alpha:
        alpha = float(_only_rank(adapter))
    fields = {**copied_fields(adapter), ALPHA: encode(ValueType.FLOAT32, alpha * scale)}
    file = layout(fields, adapter.tensors, alignment=adapter.alignment, version=adapter.version)
    try:
        with HashedFile(target) as output, open(source, "rb", buffering=0) as opened:
            output.write(file.header)
            for old, new in zip(adapter.tensors, file.tensors, strict=True):
                report(Progress("scaling adapter", total=file.size, completed=output.size))
                for chunk in tensor_chunks(opened, source, old):
                    output.write(chunk)
                output.write(file.padding(new))
    except OSError as error:  # of the source: the output has errors of its own
        raise ModelFileError(f'cannot read "{source}": {error.strerror}') from error
    return output.written


def check_scale(scale: float) -> None:
    """`BadRequest` for a strength that no adapter can have: the engine takes 0 for 1."""
    if not math.isfinite(scale) or not 1e-6 <= abs(scale) <= 1e6:
        raise BadRequest(f"an adapter's scale is {scale:g}, neither 0.000001 to 1000000 nor as much below 0")


def _pairs(adapter: GGUF) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of `lora_a` and `lora_b` by the tensor they change."""
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in adapter.tensors:
        if tensor.name.endswith(_IGNORED):
            continue
        name, dot, half = tensor.name.rpartition(".")
        if half not in ("lora_a", "lora_b") or not dot:
            raise ModelFileError(f'the adapter has a tensor "{tensor.name}", which is no part of a LoRA')
        if tensor.type not in _TYPES:
            raise ModelFileError(
                f'the adapter\'s tensor "{tensor.name}" has the type {tensor.type}, which is not one of adapters'
            )
        halves.setdefault(name, {})[half] = tensor.shape
    for name, found in halves.items():
        for half in ("lora_a", "lora_b"):
            if half not in found:
                raise ModelFileError(f'the adapter has no tensor "{name}.{half}"')
    return {name: (found["lora_a"], found["lora_b"]) for name, found in halves.items()}


def _only_rank(adapter: GGUF) -> int:
    """The rank that all pairs have: an adapter without alpha has a strength of 1 whatever its rank."""
    ranks = {up[0] for _, up in _pairs(adapter).values()}
    if len(ranks) != 1:
        raise ModelFileError(f'the adapter has tensors of several ranks and no key "{ALPHA}", so it cannot be scaled')
    return ranks.pop()


def _in_three(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape in three dimensions: those that are not there have one element."""
    return (*shape, 1, 1, 1)[: max(3, len(shape))]
