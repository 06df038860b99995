"""Projectors: whether the keys and tensors of an encoder of pictures or sounds fit together, as the engine needs them.

The engine takes a projector's tensors by name and looks at no shape: two that do not fit together end the process, and
so does one that is missing or a key of another type. What is checked here holds for all kinds of encoders, and what is
known of a kind for that kind; an unknown kind is the engine's to refuse.
"""

import re
from collections.abc import Mapping

from corral.errors import ModelFileError
from corral.gguf.encoders import check_kind
from corral.gguf.expected import expect, refuse
from corral.gguf.file import GGUF, Array, Tensor
from corral.gguf.keys import full_key, quoted
from corral.gguf.types import ValueType

_NUMBERS = (
    *("attention.head_count", "attention.head_count_kv", "attention.head_dim", "block_count", "embedding_length"),
    *("feed_forward_length", "projection_dim"),
)
_VISION_NUMBERS = (
    *("image_size", "patch_size", "spatial_merge_size", "n_wa_pattern", "projector.scale_factor"),
    *("image_max_pixels", "image_min_pixels", "preproc_image_size", "window_size"),
)
_AUDIO_NUMBERS = ("num_mel_bins", "projector.stack_factor")

KEY_TYPES: dict[str, ValueType] = {
    "has_vision_encoder": ValueType.BOOL,
    "has_audio_encoder": ValueType.BOOL,
    "use_gelu": ValueType.BOOL,
    "use_silu": ValueType.BOOL,
    "projector_type": ValueType.STRING,
    "vision.projector_type": ValueType.STRING,
    "audio.projector_type": ValueType.STRING,
    "vision.mm_patch_merge_type": ValueType.STRING,
    "vision.attention.layer_norm_epsilon": ValueType.FLOAT32,
    "audio.attention.layer_norm_epsilon": ValueType.FLOAT32,
    "minicpmv_version": ValueType.INT32,
    "minicpmv_query_num": ValueType.UINT32,
    "general.name": ValueType.STRING,
    "general.description": ValueType.STRING,
    **{f"{encoder}.{key}": ValueType.UINT32 for encoder in ("vision", "audio") for key in _NUMBERS},
    **{f"vision.{key}": ValueType.UINT32 for key in _VISION_NUMBERS},
    **{f"audio.{key}": ValueType.UINT32 for key in _AUDIO_NUMBERS},
    **{f"vision.sam.{key}": ValueType.UINT32 for key in ("block_count", "embedding_length", "head_count")},
}
"""What a projector's keys are made of: the engine ends the process over any other type."""

_PER_CHANNEL = ("vision.image_mean", "vision.image_std")

_PLAIN_VISION = frozenset(
    {
        *("mlp", "gemma3", "gemma4v", "glm4v", "idefics3", "internvl", "janus_pro", "nemotron_v2_vl", "pixtral"),
        *("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"),
    }
)
"""Kinds whose pictures go in as patches through one convolution, and through one transformer of one width."""

_TWO_CONVOLUTIONS = frozenset({"glm4v", "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"})
_FIXED_POSITIONS = frozenset({"mlp", "gemma3"})
"""Kinds with a row of positions for each patch of the one size of pictures they see."""

_REQUIRED: dict[str, tuple[str, ...]] = {
    "mlp": ("v.position_embd.weight", "mm.0.weight", "mm.0.bias", "mm.2.weight", "mm.2.bias"),
    "gemma3": ("mm.input_projection.weight", "mm.soft_emb_norm.weight"),
    "nemotron_v2_vl": (
        *("v.class_embd", "v.position_embd.weight"),
        *(f"mm.model.mlp.{number}.weight" for number in (0, 1, 3)),
    ),
    "qwen3vl_merger": ("v.patch_embd.bias",),
}

_BLOCK = re.compile(r"([va])\.blk\.(\d+)\.(attn_q|attn_k|attn_v|attn_qkv|attn_out|ffn_up|ffn_gate|ffn_down)\.weight")
_ENCODERS = {"v": "vision", "a": "audio"}


def check_projector(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the key or tensor, for an encoder the engine could not run; else does nothing."""
    _check_pictures(file)
    if file.architecture != "clip":
        if any(key.startswith("clip.") for key in file.metadata):
            raise ModelFileError(f'key "general.architecture" is "{quoted(file.architecture)}", in a projector')
        return
    _check_key_types(file)
    if file.split is not None:
        return  # the rest is in other files
    tensors = {tensor.name: tensor for tensor in file.tensors}
    _check_biases(tensors)
    for encoder, blocks in _blocks(tensors).items():
        _check_blocks(file, encoder, blocks)
        if encoder == "v":
            _check_vision_tensors(file, tensors)
        check_kind(file, _ENCODERS[encoder], _projector_type(file, _ENCODERS[encoder]), tensors)


def _check_pictures(file: GGUF) -> None:
    image, patch = file.integer("vision.image_size"), file.integer("vision.patch_size")
    if image is not None and patch is not None and image < patch:
        raise ModelFileError(f'key "{full_key(file, "vision.image_size")}" is {image}, less than one patch of {patch}')
    if file.integer("vision.spatial_merge_size") == 0 and file.text("projector_type") != "pixtral":
        raise ModelFileError(f'key "{full_key(file, "vision.spatial_merge_size")}" is 0')  # pixtral's: "not merged"
    for encoder in ("vision", "audio"):
        width, heads = file.integer(f"{encoder}.embedding_length"), file.integer(f"{encoder}.attention.head_count")
        wide_heads = file.get(f"{encoder}.attention.head_dim") is not None
        if width is not None and heads is not None and not wide_heads and width % heads:
            key = full_key(file, f"{encoder}.attention.head_count")
            raise ModelFileError(f'key "{key}" is {heads}, which does not divide {width} elements')
    for key in _PER_CHANNEL:
        array = file.get(key)
        if isinstance(array, Array) and array.length < 3:
            raise ModelFileError(f'key "{full_key(file, key)}" has {array.length} elements instead of 3')
    pinpoints = file.get("vision.image_grid_pinpoints")
    if isinstance(pinpoints, Array) and pinpoints.length % 2:
        key = full_key(file, "vision.image_grid_pinpoints")
        raise ModelFileError(f'key "{key}" has {pinpoints.length} elements, which are not pairs')


def _check_key_types(file: GGUF) -> None:
    for key, kind in KEY_TYPES.items():
        full = full_key(file, key)
        if full in file.types and file.types[full] is not kind:
            raise ModelFileError(f'key "{full}" is of type {file.types[full].name.lower()}, not {kind.name.lower()}')


def _check_biases(tensors: Mapping[str, Tensor]) -> None:
    """A bias has an element for each row of a matrix, or each element of a norm."""
    for name, bias in tensors.items():
        weight = tensors.get(f"{name.removesuffix('.bias')}.weight")
        if not name.endswith(".bias") or weight is None or not 0 < len(weight.shape) < 3:
            continue
        expect(bias, elements=weight.shape[-1])


def _blocks(tensors: Mapping[str, Tensor]) -> dict[str, dict[int, dict[str, Tensor]]]:
    """The matrices of each block of each encoder, `v` and `a`, by their names within the block."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        if match := _BLOCK.fullmatch(name):
            found.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = tensor
    return found


def _check_blocks(file: GGUF, encoder: str, blocks: Mapping[int, Mapping[str, Tensor]]) -> None:
    for number, block in sorted(blocks.items()):
        if "attn_qkv" not in block:
            for part in ("attn_q", "attn_k", "attn_v"):
                if part not in block:
                    raise ModelFileError(f'tensor "{encoder}.blk.{number}.{part}.weight" is missing')
        if any(len(tensor.shape) < 2 for tensor in block.values()):
            flat = next(tensor for tensor in block.values() if len(tensor.shape) < 2)
            raise ModelFileError(f'tensor "{flat.name}" has the shape {list(flat.shape)}, which is no matrix')
        width = block["attn_q" if "attn_q" in block else "attn_qkv"].shape[0]
        if encoder == "v" and _projector_type(file) in _PLAIN_VISION:
            width = file.integer("vision.embedding_length") or width
        _check_width(block, width)
        _check_heads(file, _ENCODERS[encoder], block, width)
        _check_feed_forward(block, width)


def _check_width(block: Mapping[str, Tensor], width: int) -> None:
    """All that reads what flows from block to block has its width, and so has all that adds to it."""
    for part, tensor in block.items():
        if part in ("attn_q", "attn_k", "attn_v", "attn_qkv", "ffn_gate"):
            expect(tensor, row=width)
        elif part == "attn_out":
            expect(tensor, rows=width)


def _check_heads(file: GGUF, encoder: str, block: Mapping[str, Tensor], width: int) -> None:
    heads, own = file.integer(f"{encoder}.attention.head_count"), file.integer(f"{encoder}.attention.head_dim")
    together = width if own is None or heads is None else own * heads
    if "attn_q" not in block or _projector_type(file) not in _PLAIN_VISION or encoder == "audio":
        return
    shared = file.get(f"{encoder}.attention.head_count_kv") is not None
    for part in ("attn_q",) if shared else ("attn_q", "attn_k", "attn_v"):
        expect(block[part], rows=together)
    if "attn_out" in block:
        expect(block["attn_out"], row=together)


def _check_feed_forward(block: Mapping[str, Tensor], width: int) -> None:
    """Up and down fit together. Old files have the two names exchanged, which the engine notices by their shapes."""
    up, down = block.get("ffn_up"), block.get("ffn_down")
    if up is None or down is None:
        return
    if down.shape[0] == width:
        up, down = down, up
    expect(up, row=width)
    expect(down, rows=width)
    if up.shape[1] not in (down.shape[0], 2 * down.shape[0]):
        raise ModelFileError(
            f'tensors "{up.name}" and "{down.name}" have the shapes {list(up.shape)} and {list(down.shape)}, '
            "which do not fit together"
        )


def _check_vision_tensors(file: GGUF, tensors: Mapping[str, Tensor]) -> None:
    """The parts around the blocks, for kinds that are known."""
    kind = _projector_type(file)
    width, patch = file.integer("vision.embedding_length"), file.integer("vision.patch_size")
    if kind not in _PLAIN_VISION or width is None or patch is None:
        return
    convolutions = ["v.patch_embd.weight", *(["v.patch_embd.weight.1"] if kind in _TWO_CONVOLUTIONS else [])]
    for name in (*convolutions, *_REQUIRED.get(kind, ())):
        if name not in tensors:
            raise ModelFileError(f'tensor "{name}" is missing')
    if kind in _TWO_CONVOLUTIONS and "v.class_embd" in tensors:
        raise ModelFileError(f'tensor "v.class_embd" is not one for the projector type "{kind}"')
    for name in convolutions:
        if tensors[name].shape != (patch, patch, 3, width):
            refuse(tensors[name], f"{[patch, patch, 3, width]}")
    for name in ("v.class_embd", "v.patch_embd.bias", "v.pre_ln.weight", "v.pre_ln.bias", "v.post_ln.weight"):
        if name in tensors and not (name == "v.class_embd" and kind == "nemotron_v2_vl"):
            expect(tensors[name], elements=width)
    if kind == "nemotron_v2_vl":
        _check_nemotron(file, tensors, width, patch)
    if "v.position_embd.weight" in tensors and kind in _FIXED_POSITIONS:
        _check_positions(file, tensors, width, patch)
    if kind == "mlp":
        expect(tensors["mm.0.weight"], row=width)
        expect(tensors["mm.2.weight"], row=tensors["mm.0.weight"].shape[-1])
    if kind == "gemma3":
        expect(tensors["mm.input_projection.weight"], rows=width)
        expect(tensors["mm.soft_emb_norm.weight"], elements=width)


def _check_nemotron(file: GGUF, tensors: Mapping[str, Tensor], width: int, patch: int) -> None:
    """It has several rows before those of the patches, and joins squares of patches before its two matrices."""
    side = (file.integer("vision.image_size") or 0) // patch
    joined = file.integer("vision.projector.scale_factor") or 2
    if side % joined:
        key = full_key(file, "vision.projector.scale_factor")
        raise ModelFileError(f'key "{key}" is {joined}, which does not divide {side} patches')
    expect(tensors["v.class_embd"], row=width)
    expect(tensors["v.position_embd.weight"], row=width, elements=side * side * width)
    norm, first, second = (tensors[f"mm.model.mlp.{number}.weight"] for number in (0, 1, 3))
    expect(norm, elements=width * joined * joined)
    expect(first, row=norm.elements)
    expect(second, row=first.shape[-1], rows=file.integer("vision.projection_dim"))


def _check_positions(file: GGUF, tensors: Mapping[str, Tensor], width: int, patch: int) -> None:
    side = (file.integer("vision.image_size") or 0) // patch
    wanted = side * side + ("v.class_embd" in tensors)
    positions = tensors["v.position_embd.weight"]
    expect(positions, row=width)
    if positions.shape[-1] < wanted:
        raise ModelFileError(f'tensor "{positions.name}" has {positions.shape[-1]} rows, for {wanted} patches')
    if _projector_type(file) == "gemma3":
        if positions.shape[-1] != wanted or positions.type != "F32":
            refuse(positions, f"{wanted} rows of F32")
        pooled = file.integer("vision.projector.scale_factor") or 4
        if side % pooled:
            key = full_key(file, "vision.projector.scale_factor")
            raise ModelFileError(f'key "{key}" is {pooled}, which does not divide {side} patches')


def _projector_type(file: GGUF, encoder: str = "vision") -> str:
    return file.text(f"{encoder}.projector_type") or file.text("projector_type") or ""
