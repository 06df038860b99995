"""What single kinds of encoders have to have, beside what holds for all: `check_kind`. Sizes come from the keys.

A shape is written with the row length first; 0 is any size.
"""

from collections.abc import Callable, Mapping

from corral.errors import ModelFileError
from corral.gguf.expected import expect, expect_shape
from corral.gguf.file import GGUF, Tensor

Tensors = Mapping[str, Tensor]


def check_kind(file: GGUF, encoder: str, kind: str, tensors: Tensors) -> None:
    """Raises `ModelFileError` for an encoder, `vision` or `audio`, of a known kind that the engine would end over."""
    width = file.integer(f"{encoder}.embedding_length")
    check = _KINDS.get(kind)
    if check is not None and width is not None:
        check(file, width, tensors)


def _gemma4v(file: GGUF, width: int, tensors: Tensors) -> None:
    expect_shape(_tensor(tensors, "v.position_embd.weight"), width, 0, 2)
    expect(_tensor(tensors, "mm.input_projection.weight"), row=width)
    for name in ("v.std_bias", "v.std_scale"):
        _expect_norm(tensors, name, width)


def _gemma4a(file: GGUF, width: int, tensors: Tensors) -> None:
    channels = 1
    for number in range(2):
        convolution = _tensor(tensors, f"a.conv1d.{number}.weight")
        expect_shape(convolution, 3, 3, channels, 0)
        channels = (*convolution.shape, 1)[3]
        _expect_norm(tensors, f"a.conv1d.{number}.norm.weight", channels)
    bins, heads = file.integer("audio.num_mel_bins") or 0, file.integer("audio.attention.head_count") or 1
    expect_shape(_tensor(tensors, "a.input_projection.weight"), channels * (bins // 4), width)
    out = _tensor(tensors, "a.pre_encode.out.weight")
    expect(out, row=width)
    expect(_tensor(tensors, "mm.a.input_projection.weight"), row=(*out.shape, 1)[1])
    for number in range(file.integer("audio.block_count") or 0):
        _conformer_block(f"a.blk.{number}", width, heads, tensors)


def _conformer_block(block: str, width: int, heads: int, tensors: Tensors) -> None:
    for name in ("ffn_norm", "ffn_norm_1"):
        expect(_tensor(tensors, f"{block}.{name}.weight"), elements=width)
    for name in ("attn_pre_norm", "attn_post_norm", "ln2", "norm_conv", "conv_norm"):
        _expect_norm(tensors, f"{block}.{name}.weight", width)
    _expect_norm(tensors, f"{block}.per_dim_scale.weight", width // heads)
    expect_shape(_tensor(tensors, f"{block}.attn_k_rel.weight"), width, width)
    expect_shape(_tensor(tensors, f"{block}.conv_pw1.weight"), width, 2 * width)
    expect_shape(_tensor(tensors, f"{block}.conv_pw2.weight"), width, width)
    expect_shape(_tensor(tensors, f"{block}.conv_dw.weight"), 5, width)
    up = _tensor(tensors, f"{block}.ffn_up_1.weight")
    expect_shape(up, width, 0)
    expect_shape(_tensor(tensors, f"{block}.ffn_down_1.weight"), (*up.shape, 1)[1], width)


def _glm4v(file: GGUF, width: int, tensors: Tensors) -> None:
    expect(_tensor(tensors, "v.patch_embd.bias"), elements=width)
    if "v.position_embd.weight" in tensors:
        expect(tensors["v.position_embd.weight"], row=width)
    for name in ("v.norm_embd.weight", "v.post_ln.weight"):
        _expect_norm(tensors, name, width)
    merged = _tensor(tensors, "mm.patch_merger.weight")
    merging = file.integer("vision.spatial_merge_size") or 2
    expect_shape(merged, merging, merging, width, 0)
    channels = (*merged.shape, 1)[3]
    expect(_tensor(tensors, "mm.patch_merger.bias"), elements=channels)
    fully = _tensor(tensors, "mm.model.fc.weight")
    expect_shape(fully, channels, 0)
    expect(_tensor(tensors, "mm.post_norm.weight"), elements=(*fully.shape, 1)[1])
    up = _tensor(tensors, "mm.up.weight")
    expect_shape(up, (*fully.shape, 1)[1], 0)
    expect_shape(_tensor(tensors, "mm.gate.weight"), *up.shape)
    expect(_tensor(tensors, "mm.down.weight"), row=(*up.shape, 1)[1])


_WHOLE_VIEW = 2
"""The first block of DeepSeek OCR's first encoder that sees the whole picture. One without ends the engine."""


def _deepseekocr(file: GGUF, width: int, tensors: Tensors) -> None:
    inner, blocks = file.integer("vision.sam.embedding_length") or 0, file.integer("vision.sam.block_count") or 0
    heads = file.integer("vision.sam.head_count") or 0
    if blocks <= _WHOLE_VIEW:
        raise ModelFileError(f'key "clip.vision.sam.block_count" is {blocks}, not more than {_WHOLE_VIEW}')
    if not heads or inner % heads:
        raise ModelFileError(f'key "clip.vision.sam.head_count" is {heads}, which does not divide {inner} elements')
    expect_shape(_tensor(tensors, "v.sam.patch_embd.weight"), 16, 16, 3, inner)
    expect(_tensor(tensors, "v.sam.patch_embd.bias"), elements=inner)
    expect_shape(_tensor(tensors, "v.sam.pos_embd.weight"), inner, 0, 0, 1)
    for number in range(blocks):
        _sam_block(f"v.sam.blk.{number}", inner, heads, tensors)
    channels = inner
    for name, size in (("neck.0", 1), ("neck.2", 3), ("net_2", 3), ("net_3", 3)):
        convolution = _tensor(tensors, f"v.sam.{name}.weight")
        expect_shape(convolution, size, size, channels, 0)
        channels = (*convolution.shape, 1)[3]
        if name.startswith("neck"):
            norm = _tensor(tensors, f"v.sam.neck.{int(name[-1]) + 1}.weight")
            expect(norm, elements=channels)
    expect_shape(tensors["v.sam.net_3.weight"], 3, 3, 0, width)
    expect(_tensor(tensors, "v.class_embd"), elements=width)
    expect_shape(_tensor(tensors, "v.position_embd.weight"), width, 0)
    fully = _tensor(tensors, "mm.model.fc.weight")
    expect_shape(fully, 2 * width, 0)
    for name in ("v.image_newline", "v.view_seperator"):
        expect(_tensor(tensors, name), elements=(*fully.shape, 1)[1])


def _sam_block(block: str, inner: int, heads: int, tensors: Tensors) -> None:
    for name in ("pre_ln", "post_ln"):
        expect(_tensor(tensors, f"{block}.{name}.weight"), elements=inner)
    for name in ("pos_h", "pos_w"):
        expect_shape(_tensor(tensors, f"{block}.attn.{name}.weight"), inner // heads, 0)
    expect_shape(_tensor(tensors, f"{block}.attn.qkv.weight"), inner, 3 * inner)
    expect_shape(_tensor(tensors, f"{block}.attn.out.weight"), inner, inner)
    up = _tensor(tensors, f"{block}.mlp.lin1.weight")
    expect_shape(up, inner, 0)
    expect_shape(_tensor(tensors, f"{block}.mlp.lin2.weight"), (*up.shape, 1)[1], inner)


_KINDS: dict[str, Callable[[GGUF, int, Tensors], None]] = {
    "gemma4v": _gemma4v,
    "gemma4a": _gemma4a,
    "glm4v": _glm4v,
    "deepseekocr": _deepseekocr,
}


def _expect_norm(tensors: Tensors, name: str, elements: int) -> None:
    """So many elements of a tensor that may be missing."""
    if name in tensors:
        expect(tensors[name], elements=elements)


def _tensor(tensors: Tensors, name: str) -> Tensor:
    found = tensors.get(name)
    if found is None:
        raise ModelFileError(f'tensor "{name}" is missing')
    return found
