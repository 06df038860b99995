"""Whether the numbers of a GGUF file make sense for the architecture it names. Reads metadata, decides nothing else.

Native code divides by some of these numbers, sizes memory by others and indexes arrays by a third kind, not always
looking first. So what no real model has is refused here, by the name of its key.
"""

import math

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, MAX_LAYERS, Array
from corral.gguf.types import TENSOR_TYPES, ValueType

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
    "expert_count": (0, 1 << 12),
    "expert_used_count": (0, 1 << 12),
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
    "split.no": (0, (1 << 16) - 1),
    "split.count": (0, (1 << 16) - 1),
    "split.tensors.count": (0, _LONG),
}
"""Least and greatest value of a number, or of each element where the file gives one for every layer."""

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

_CLIP_TYPES: dict[str, ValueType] = {
    "has_vision_encoder": ValueType.BOOL,
    "has_audio_encoder": ValueType.BOOL,
    "use_gelu": ValueType.BOOL,
    "use_silu": ValueType.BOOL,
    "projector_type": ValueType.STRING,
    "vision.projector_type": ValueType.STRING,
    "audio.projector_type": ValueType.STRING,
    "general.name": ValueType.STRING,
    "general.description": ValueType.STRING,
    **{key: ValueType.UINT32 for key in _BOUNDS if key.startswith(("vision.", "audio."))},
}
"""What a projector's keys are made of: the engine's reader of projectors ends the process over any other type."""

_PER_TOKEN = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
_PER_CHANNEL = ("vision.image_mean", "vision.image_std")
_WITHOUT_ATTENTION = (".ssm.", ".wkv.", ".shortconv.", ".kda.")
_NOT_FOR_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
_BLOCKS = {kind.name: kind.block for kind in TENSOR_TYPES.values()}
_TABLES = ("tid2eid", "d2t", "t2d")
"""Parts of the names of tensors that are tables of numbers: token to expert, draft token to token."""


def check(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the key, for numbers that no model of the file's architecture can have."""
    for key, (least, greatest) in _BOUNDS.items():
        _check_number(file, key, least, greatest)
    _check_fractions(file)
    _check_heads(file)
    _check_experts(file)
    _check_vision(file)
    _check_clip_types(file)
    _check_arrays(file)
    _check_tensor_types(file)
    _check_byte_tokens(file)
    _check_split(file)


def _check_number(file: GGUF, key: str, least: int, greatest: int) -> None:
    value = file.get(key)
    if value is None:
        return
    if (isinstance(value, Array) and value.type not in _WHOLE) or isinstance(value, bool | float | str):
        raise ModelFileError(f'key "{_full(file, key)}" is not a whole number')
    for number in _numbers(file, key):
        if not least <= number <= greatest:
            raise ModelFileError(f'key "{_full(file, key)}" is {number}, not between {least} and {greatest}')


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
            raise ModelFileError(f'key "{_full(file, key)}" is {base}, not above 0')


def _check_heads(file: GGUF) -> None:
    heads, kv_heads = _numbers(file, "attention.head_count"), _numbers(file, "attention.head_count_kv")
    recurrent = any(mark in key for key in file.metadata for mark in _WITHOUT_ATTENTION)
    if heads and not any(heads) and not recurrent:
        raise ModelFileError(f'key "{_full(file, "attention.head_count")}" is 0')
    most, width = max(heads, default=_HEADS), file.embedding_length
    if heads and width is not None and most > width:
        raise ModelFileError(f'key "{_full(file, "attention.head_count")}" is {most}, for {width} elements')
    if max(kv_heads, default=0) > most:
        raise ModelFileError(f'key "{_full(file, "attention.head_count_kv")}" is {max(kv_heads)}, of {most} heads')


def _check_experts(file: GGUF) -> None:
    count = max(_numbers(file, "expert_count"), default=0)
    used = _numbers(file, "expert_used_count")
    if max(used, default=0) > count or (count and used and not max(used)):
        raise ModelFileError(f'key "{_full(file, "expert_used_count")}" is {max(used)}, of {count} experts')
    groups = file.integer("expert_group_count")
    if groups and groups > count:
        raise ModelFileError(f'key "{_full(file, "expert_group_count")}" is {groups}, for {count} experts')


def _check_vision(file: GGUF) -> None:
    image, patch = file.integer("vision.image_size"), file.integer("vision.patch_size")
    if image is not None and patch is not None and image < patch:
        raise ModelFileError(f'key "{_full(file, "vision.image_size")}" is {image}, less than one patch of {patch}')
    if file.integer("vision.spatial_merge_size") == 0 and file.text("projector_type") != "pixtral":
        raise ModelFileError(f'key "{_full(file, "vision.spatial_merge_size")}" is 0')  # pixtral's 0 is "not merged"
    for encoder in ("vision", "audio"):
        width, heads = file.integer(f"{encoder}.embedding_length"), file.integer(f"{encoder}.attention.head_count")
        wide_heads = file.get(f"{encoder}.attention.head_dim") is not None
        if width is not None and heads is not None and not wide_heads and width % heads:
            key = _full(file, f"{encoder}.attention.head_count")
            raise ModelFileError(f'key "{key}" is {heads}, which does not divide {width} elements')
    for key in _PER_CHANNEL:
        array = file.get(key)
        if isinstance(array, Array) and array.length < 3:
            raise ModelFileError(f'key "{_full(file, key)}" has {array.length} elements instead of 3')
    pinpoints = file.get("vision.image_grid_pinpoints")
    if isinstance(pinpoints, Array) and pinpoints.length % 2:
        key = _full(file, "vision.image_grid_pinpoints")
        raise ModelFileError(f'key "{key}" has {pinpoints.length} elements, which are not pairs')


def _check_clip_types(file: GGUF) -> None:
    if file.architecture != "clip":
        return
    for key, kind in _CLIP_TYPES.items():
        full = _full(file, key)
        if full in file.types and file.types[full] is not kind:
            raise ModelFileError(f'key "{full}" is of type {file.types[full].name.lower()}, not {kind.name.lower()}')


def _check_arrays(file: GGUF) -> None:
    for key, kinds in _ELEMENTS.items():
        value = file.get(key)
        if value is not None and not (isinstance(value, Array) and value.type in kinds):
            names = " or ".join(sorted(kind.name.lower() for kind in kinds))
            raise ModelFileError(f'key "{_full(file, key)}" is not an array of {names}')
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


def _check_tensor_types(file: GGUF) -> None:
    """Weights in types the engine does not calculate with: it looks for their arithmetic where there is none."""
    for tensor in file.tensors:
        if not tensor.name.endswith((".weight", ".bias")) or any(table in tensor.name for table in _TABLES):
            continue
        in_blocks = _BLOCKS[tensor.type] > 1
        if tensor.type in _NOT_FOR_WEIGHTS or (in_blocks and len(tensor.shape) < 2):
            raise ModelFileError(
                f'tensor "{tensor.name}" has the type {tensor.type}, which is not one for such weights'
            )


def _check_byte_tokens(file: GGUF) -> None:
    """PLaMo-2's byte tokens: the engine's loader has written to memory at whatever number stood in one."""
    if file.text("tokenizer.ggml.model") != "plamo2" or not isinstance(file.get("tokenizer.ggml.tokens"), Array):
        return
    for token in file.values("tokenizer.ggml.tokens"):
        if isinstance(token, str) and token.startswith("<0x") and token.endswith(">"):
            digits = token[3:-1]
            if len(digits) != 2 or not set(digits) <= set("0123456789abcdefABCDEF"):
                raise ModelFileError(f'key "tokenizer.ggml.tokens" has the byte token "{token[:20]}"')


def _check_split(file: GGUF) -> None:
    number, count = file.integer("split.no"), file.integer("split.count")
    if count and (number or 0) >= count:
        raise ModelFileError(f'key "split.no" is {number}, of {count} files')


def _numbers(file: GGUF, key: str) -> list[int]:
    """The number of a key, or those of its array; empty without it."""
    value = file.get(key)
    if isinstance(value, Array):
        if value.length > MAX_LAYERS:
            raise ModelFileError(f'key "{_full(file, key)}" has {value.length} elements, more than {MAX_LAYERS} layers')
        return [number for number in file.values(key) if isinstance(number, int)]
    return [value] if isinstance(value, int) else []


def _full(file: GGUF, key: str) -> str:
    """The key as the file has it."""
    scoped = f"{file.architecture}.{key}"
    return scoped if scoped in file.metadata else key
