"""Qwen 2.5 VL: another architecture name, three sections of positions instead of four, and an encoder of pictures."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.clip import CLIP_MEAN, CLIP_STD, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_SECTIONS = [16, 24, 24]
"""Of every published size, where a file does not say."""

_STEMS = {
    "v.merger.ln_q": "v.post_ln",
    "v.merger.mlp.0": "mm.0",
    "v.merger.mlp.2": "mm.2",
}
_NAMES = {
    "v.patch_embd_0.weight": "v.patch_embd.weight",
    "v.patch_embd_1.weight": "v.patch_embd.weight.1",
}
_COPIED = ("attention.head_count", "block_count", "embedding_length", "patch_size", "spatial_merge_size")


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_architecture("qwen25vl", "qwen2vl")
    sections = values.integers(file, "qwen25vl.rope.mrope_section", _SECTIONS)
    draft.put_array("qwen2vl.rope.dimension_sections", ValueType.INT32, [*[*sections, 0, 0, 0][:3], 0])
    draft.drop("qwen2vl.rope.mrope_section")
    draft.hide("v.", "mm.")
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, "v.", "mm.")
    keys = ClipKeys(draft, uses="silu")
    keys.sees("qwen2.5vl_merger")
    for name in _COPIED:
        keys.whole(f"vision.{name}", f"qwen25vl.vision.{name}")
    keys.whole("vision.window_size", "qwen25vl.vision.window_size", 112)
    keys.real("vision.attention.layer_norm_epsilon", "qwen25vl.vision.attention.layer_norm_epsilon", 1e-6)
    keys.whole("vision.projection_dim", "qwen25vl.embedding_length")
    keys.put_whole("vision.feed_forward_length", values.dimension(file, "v.blk.0.ffn_up.weight", 1))
    whole_attention = values.integers(file, "qwen25vl.vision.fullatt_block_indexes", [7])
    keys.put_whole("vision.n_wa_pattern", (whole_attention or [7])[0] + 1)
    keys.whole("vision.image_size", "qwen25vl.vision.image_size", 560)
    keys.colours(CLIP_MEAN, CLIP_STD, source="qwen25vl.vision")
    draft.rename(_STEMS, _NAMES)
    draft.widen(lambda recipe: recipe.name.startswith("v.patch_embd."))
    return draft


FAMILY = Family(name="qwen25vl", version=1, architectures=("qwen25vl",), recognises=lambda file: True, derive=_derive)
