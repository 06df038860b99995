"""Whether the numbers of a GGUF file make sense for the architecture it names. Reads metadata, decides nothing else.

Native code divides by some of these numbers, sizes memory by others and indexes arrays by a third kind, not always
looking first. So what no real model has is refused here, by the name of its key.
"""

import math

from corral.errors import ModelFileError
from corral.gguf.attention import check_attention
from corral.gguf.file import GGUF, MAX_LAYERS, Array
from corral.gguf.keys import full_key, numbers, quoted
from corral.gguf.types import ValueType

_HEADS = 1 << 16
_WIDTH = 1 << 20
_WIDE = 1 << 24
_LONG = (1 << 31) - 1
_TOKENS = 1 << 20
_TOKENS_BYTES = 64 << 20

_BOUNDS: dict[str, tuple[int, int]] = {
    "block_count": (1, MAX_LAYERS),
    "context_length": (1, _LONG),
    "embedding_length": (1, _WIDTH),
    "embedding_length_out": (1, _WIDTH),
    "features_length": (1, _WIDTH),
    "feed_forward_length": (0, _WIDE),
    "vocab_size": (1, _TOKENS),
    "attention.head_count": (0, _HEADS),
    "attention.head_count_kv": (0, _HEADS),
    "attention.key_length": (1, _HEADS),
    "attention.value_length": (1, _HEADS),
    "attention.key_length_swa": (1, _HEADS),
    "attention.value_length_swa": (1, _HEADS),
    "attention.key_length_mla": (1, _HEADS),
    "attention.value_length_mla": (1, _HEADS),
    "attention.kv_lora_rank": (0, _WIDTH),
    "attention.q_lora_rank": (0, _WIDTH),
    "attention.group_norm_groups": (1, _WIDTH),
    "attention.shared_kv_layers": (0, MAX_LAYERS),
    "rope.dimension_count": (0, _HEADS),
    "rope.dimension_count_swa": (0, _HEADS),
    "rope.dimension_sections": (0, _HEADS),
    "expert_count": (0, 1 << 10),
    "expert_used_count": (0, 1 << 10),
    "expert_gating_func": (0, 4),
    "expert_shared_count": (0, 1 << 12),
    "expert_group_count": (0, 1 << 12),
    "expert_group_used_count": (0, 1 << 12),
    "expert_feed_forward_length": (0, _WIDE),
    "leading_dense_block_count": (0, MAX_LAYERS),
    "nextn_predict_layers": (0, MAX_LAYERS),
    "full_attention_interval": (1, MAX_LAYERS),
    "moe_every_n_layers": (0, MAX_LAYERS),
    "interleave_moe_layer_step": (0, MAX_LAYERS),
    "pooling_type": (0, 4),
    "ssm.conv_kernel": (0, _WIDTH),
    "ssm.inner_size": (0, _WIDE),
    "ssm.state_size": (0, _WIDE),
    "ssm.time_step_rank": (0, _WIDE),
    "ssm.group_count": (0, _WIDE),
    "shortconv.l_cache": (1, _WIDTH),
    "wkv.head_size": (1, _WIDTH),
    "kda.head_dim": (1, _WIDTH),
    "vision.image_size": (1, _HEADS),
    "vision.patch_size": (1, 1 << 12),
    "vision.block_count": (0, MAX_LAYERS),
    "vision.embedding_length": (1, _WIDTH),
    "vision.feed_forward_length": (0, _WIDE),
    "vision.projection_dim": (0, _WIDTH),
    "vision.attention.head_count": (1, _HEADS),
    "vision.spatial_merge_size": (0, 1 << 8),
    "vision.projector.scale_factor": (1, 1 << 8),
    "vision.n_wa_pattern": (0, MAX_LAYERS),
    "audio.num_mel_bins": (1, 1 << 12),
    "audio.block_count": (0, MAX_LAYERS),
    "audio.embedding_length": (1, _WIDTH),
    "audio.feed_forward_length": (0, _WIDE),
    "audio.projection_dim": (0, _WIDTH),
    "audio.attention.head_count": (1, _HEADS),
    "audio.projector.stack_factor": (1, 1 << 8),
    "general.sampling.mirostat": (0, 2),
    "split.no": (0, (1 << 16) - 1),
    "split.count": (0, (1 << 16) - 1),
    "split.tensors.count": (0, _LONG),
}
"""Least and greatest value of a number, or of each element where the file gives one for every layer."""

_LEAST_LAYERS = {"gemma-embedding": 6, "llama4": 4}
"""Architectures of which some layers are of another kind; the engine ends its process over a model without one."""

_WHOLE = frozenset(
    {
        ValueType.UINT8,
        ValueType.INT8,
        ValueType.UINT16,
        ValueType.INT16,
        ValueType.UINT32,
        ValueType.INT32,
        ValueType.UINT64,
        ValueType.INT64,
    }
)

_ELEMENTS: dict[str, frozenset[ValueType]] = {
    "tokenizer.ggml.tokens": frozenset({ValueType.STRING}),
    "tokenizer.ggml.merges": frozenset({ValueType.STRING}),
    "tokenizer.ggml.scores": frozenset({ValueType.FLOAT32}),
    "tokenizer.ggml.token_type": frozenset({ValueType.INT32, ValueType.UINT32}),
    "tokenizer.ggml.precompiled_charsmap": frozenset({ValueType.INT8, ValueType.UINT8}),
    "vision.image_mean": frozenset({ValueType.FLOAT32}),
    "vision.image_std": frozenset({ValueType.FLOAT32}),
    "vision.image_grid_pinpoints": frozenset({ValueType.INT32, ValueType.UINT32}),
    "vision.feature_layer": frozenset({ValueType.INT32, ValueType.UINT32}),
    "vision.wa_layer_indexes": frozenset({ValueType.INT32, ValueType.UINT32}),
}
"""Arrays the engine reads as if their elements could only be of these types."""

_PER_TOKEN = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
_WITHOUT_TOKENIZER = ("none", "no_vocab")


def check(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the key, for numbers that no model of the file's architecture can have."""
    for key, (least, greatest) in _BOUNDS.items():
        _check_number(file, key, least, greatest)
    _check_fractions(file)
    check_attention(file)
    _check_layers(file)
    _check_experts(file)
    _check_tokenizer(file)
    _check_arrays(file)
    _check_byte_tokens(file)
    _check_split(file)


def _check_number(file: GGUF, key: str, least: int, greatest: int) -> None:
    value = file.get(key)
    if value is None:
        return
    if (isinstance(value, Array) and value.type not in _WHOLE) or isinstance(value, bool | float | str):
        raise ModelFileError(f'key "{full_key(file, key)}" is not a whole number')
    for number in numbers(file, key):
        if not least <= number <= greatest:
            raise ModelFileError(f'key "{full_key(file, key)}" is {number}, not between {least} and {greatest}')


def _check_fractions(file: GGUF) -> None:
    prefix = file.architecture + "."
    for key, value in file.metadata.items():
        if not isinstance(value, float) or not key.startswith(prefix):
            continue
        if not math.isfinite(value) or (value < 0 and key.endswith("_epsilon")):
            raise ModelFileError(f'key "{key}" is {value}')
    for key in ("rope.freq_base", "rope.freq_base_swa"):
        base = file.get(key)
        if isinstance(base, float) and base <= 0:
            raise ModelFileError(f'key "{full_key(file, key)}" is {base}, not above 0')


def _check_layers(file: GGUF) -> None:
    """Kinds of layers that are counted, against all there are."""
    layers = file.block_count
    least = _LEAST_LAYERS.get(file.architecture, 1)
    if layers is not None and layers < least:
        key = full_key(file, "block_count")
        raise ModelFileError(f'key "{key}" is {layers}, and the engine needs {least} layers at least')
    for key in ("nextn_predict_layers", "leading_dense_block_count", "attention.shared_kv_layers"):
        some = file.integer(key)
        if layers is not None and some is not None and some > layers:
            raise ModelFileError(f'key "{full_key(file, key)}" is {some}, of {layers} layers')


def _check_experts(file: GGUF) -> None:
    count = max(numbers(file, "expert_count"), default=0)
    used = numbers(file, "expert_used_count")
    if max(used, default=0) > count or (count and used and not max(used)):
        raise ModelFileError(f'key "{full_key(file, "expert_used_count")}" is {max(used)}, of {count} experts')
    if count and not used:
        raise ModelFileError(f'key "{quoted(file.architecture)}.expert_used_count" is missing, for {count} experts')
    groups, used_groups = file.integer("expert_group_count"), file.integer("expert_group_used_count")
    if groups and groups > 1 and (groups >= count or count % groups):
        raise ModelFileError(f'key "{full_key(file, "expert_group_count")}" is {groups}, for {count} experts')
    if groups and groups > 1 and not 0 < (used_groups or 0) < groups:
        key = full_key(file, "expert_group_used_count")
        raise ModelFileError(f'key "{key}" is {used_groups or 0}, of {groups} groups of experts')
    for layer, number in enumerate(used):
        if not number and any(tensor.name == f"blk.{layer}.ffn_gate_inp.weight" for tensor in file.tensors):
            key = full_key(file, "expert_used_count")
            raise ModelFileError(
                f'key "{key}" is 0 for layer {layer}, which has the tensor "blk.{layer}.ffn_gate_inp.weight"'
            )


def _check_arrays(file: GGUF) -> None:
    for key, kinds in _ELEMENTS.items():
        value = file.get(key)
        if value is not None and not (isinstance(value, Array) and value.type in kinds):
            names = " or ".join(sorted(kind.name.lower() for kind in kinds))
            raise ModelFileError(f'key "{full_key(file, key)}" is not an array of {names}')
    tokens = file.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Array):
        return
    if tokens.length > _TOKENS or tokens.size > _TOKENS_BYTES:
        raise ModelFileError(
            f'key "tokenizer.ggml.tokens" has {tokens.length} elements of {tokens.size} bytes, '
            f"more than {_TOKENS} of {_TOKENS_BYTES}"
        )
    for key in _PER_TOKEN:
        array = file.get(key)
        if isinstance(array, Array) and array.length < tokens.length:
            raise ModelFileError(f'key "{key}" has {array.length} elements for {tokens.length} tokens')


def _check_tokenizer(file: GGUF) -> None:
    """A model of language without tokens: the engine loads it, and ends the process at the first prompt."""
    kind = file.text("tokenizer.ggml.model")
    if file.kind == "model" and kind in _WITHOUT_TOKENIZER:
        raise ModelFileError(f'key "tokenizer.ggml.model" is "{kind}": a model without a tokenizer cannot be run')


def _check_byte_tokens(file: GGUF) -> None:
    """PLaMo-2's byte tokens: the engine's loader has written to memory at whatever number stood in one."""
    if file.text("tokenizer.ggml.model") != "plamo2" or not isinstance(file.get("tokenizer.ggml.tokens"), Array):
        return
    for token in file.values("tokenizer.ggml.tokens"):
        if isinstance(token, str) and token.startswith("<0x") and token.endswith(">"):
            digits = token[3:-1]
            if len(digits) != 2 or not set(digits) <= set("0123456789abcdefABCDEF"):
                raise ModelFileError(f'key "tokenizer.ggml.tokens" has the byte token "{quoted(token)}"')


def _check_split(file: GGUF) -> None:
    number, count = file.integer("split.no"), file.integer("split.count")
    if count and (number or 0) >= count:
        raise ModelFileError(f'key "split.no" is {number}, of {count} files')
