"""LoRA adapters as PEFT and mlx-lm write them: matrices in pairs, and how strongly each counts. Knows no base model.

Whatever such a folder asks for beside adding products of two matrices is refused by name, since the engine would leave
it out. Source: the configurations of PEFT's `LoraConfig` and of mlx-lm's `lora` command.
"""

import math
import re
from collections.abc import Mapping

from msgspec import Struct

from corral.convert import checkpoint, safetensors, source
from corral.convert.arrays import Array
from corral.convert.checkpoint import Files
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.safetensors import StoredTensor, shortened
from corral.convert.source import Source
from corral.errors import ModelFileError
from corral.gguf.adapters import MAX_RANK

CONFIG = "adapter_config.json"


class Half(Struct, frozen=True):
    """One matrix of a pair; `turned` ones are stored with rows and columns exchanged."""

    source: Source
    turned: bool

    @property
    def name(self) -> str:
        """The tensor's name in the checkpoint."""
        return self.source.tensor.name

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.source.shape
        return (columns, rows) if self.turned else (rows, columns)

    def read(self) -> Array:
        """Its numbers, of `shape`, in the type they are stored in."""
        found = self.source.rows(0, self.source.shape[0])
        return found.T if self.turned else found


class Pair(Struct, frozen=True):
    """What is added to one matrix of the model: `up` (outputs by rank) times `down` (rank by inputs), times
    `alpha` divided by the rank. `module` is the matrix, as the model's own library calls it.
    """

    module: str
    down: Half
    up: Half
    alpha: float

    @property
    def rank(self) -> int:
        return self.up.shape[1]


class Adapter(Struct, frozen=True):
    """All pairs, and the alpha that most of them have."""

    pairs: tuple[Pair, ...]
    alpha: float


def read(files: Files) -> Adapter:
    """The adapter in a folder's files, named as in that folder; `ModelFileError`."""
    given = Hyperparameters(checkpoint.read_json(files, CONFIG), CONFIG)
    return _read_mlx(given, files) if given.has("lora_parameters") else _read_peft(given, files)


_PEFT_NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(?:embedding_)?([AB])(?:\.default)?(?:\.weight)?")
_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin training that leave the model's own weights as they are."""


def _read_peft(given: Hyperparameters, files: Files) -> Adapter:
    kind = given.text("peft_type")
    if kind.upper() != "LORA":
        raise ModelFileError(f'adapters of type "{shortened(kind)}" are not supported')
    given.one_of("bias", ["none"], "none")
    given.one_of("init_lora_weights", _STARTS, True)
    for key in ("use_dora", "lora_bias", "use_qalora"):
        given.one_of(key, [False], False)
    for key in ("modules_to_save", "target_parameters", "layer_replication", "alora_invocation_tokens"):
        given.one_of(key, [[]], None)
    given.one_of("trainable_token_indices", [[], {}], None)
    rank, alpha = given.integer("r", most=MAX_RANK), given.number("lora_alpha")
    ranks, alphas = _pattern(given, "rank_pattern"), _pattern(given, "alpha_pattern")
    is_by_root = given.flag("use_rslora", False)
    pairs = []
    for module, (down, up) in _halves(files, "adapter_model.safetensors", _PEFT_NAME, turned=False).items():
        wanted = _matching(ranks, module, rank)
        if up.shape[1] != wanted:
            raise ModelFileError(f'tensor "{shortened(up.name)}" has the rank {up.shape[1]}, by "{CONFIG}" {wanted:g}')
        own = _matching(alphas, module, alpha)
        pairs.append(Pair(module, down, up, own * math.sqrt(up.shape[1]) if is_by_root else own))
    return Adapter(tuple(pairs), alpha * math.sqrt(rank) if is_by_root else alpha)


_MLX_NAME = re.compile(r"(.+)\.lora_([ab])")


def _read_mlx(given: Hyperparameters, files: Files) -> Adapter:
    given.one_of("fine_tune_type", ["lora"], "lora")
    settings = given.section("lora_parameters")
    rank, scale = settings.integer("rank", 8, most=MAX_RANK), settings.number("scale", 20.0)
    halves = _halves(files, "adapters.safetensors", _MLX_NAME, turned=True)
    for _, up in halves.values():
        if up.shape[1] != rank:
            raise ModelFileError(f'tensor "{shortened(up.name)}" has the rank {up.shape[1]}, by "{CONFIG}" {rank}')
    alpha = scale * rank
    return Adapter(tuple(Pair(module, down, up, alpha) for module, (down, up) in halves.items()), alpha)


def _halves(files: Files, name: str, pattern: re.Pattern[str], *, turned: bool) -> dict[str, tuple[Half, Half]]:
    """`down` and `up` by the module they belong to."""
    if name not in files:
        raise ModelFileError("unknown tensor format")
    stored = {tensor.name: tensor for tensor in safetensors.read(files[name], name)}
    found: dict[str, dict[str, Half]] = {}
    for tensor in stored.values():
        match = pattern.fullmatch(tensor.name)
        if match is None:
            raise ModelFileError(f'tensor "{shortened(tensor.name)}" is no part of a LoRA, so it cannot be converted')
        module, half = match[1], match[2].lower()
        if half in found.setdefault(module, {}):
            raise ModelFileError(f'tensor "{shortened(tensor.name)}" is there twice')
        found[module][half] = Half(_matrix(tensor, stored), turned)
    if not found:
        raise ModelFileError("the adapter has no tensors")
    for module, halves in found.items():
        if len(halves) < 2:
            raise ModelFileError(f'the adapter has only one of two tensors for "{shortened(module)}"')
    return {module: (halves["a"], halves["b"]) for module, halves in found.items()}


def _matrix(tensor: StoredTensor, stored: Mapping[str, StoredTensor]) -> Source:
    found = source.find(stored, tensor.name)
    if found is None or found.scale is not None or len(tensor.shape) != 2 or 0 in tensor.shape:
        shape = f"{list(tensor.shape)} in {tensor.dtype}"
        raise ModelFileError(f'tensor "{shortened(tensor.name)}" is no matrix of plain floats, but {shape}')
    return found


def _pattern(given: Hyperparameters, key: str) -> dict[str, float]:
    """Numbers for some modules, by the end of their names."""
    section = given.section(key)
    found = {}
    for name in section:
        if re.search(r"[^\w.]", name):
            raise ModelFileError(
                f'{CONFIG}: "{key}" has the pattern "{shortened(name)}", which is not the end of a name'
            )
        found[name] = section.number(name)
    return found


def _matching(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The number of the first entry that a module's name ends in."""
    return next((value for name, value in pattern.items() if f".{module}".endswith(f".{name}")), default)
