"""Llama 4: right in its text, with an encoder of pictures in the model's file."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.clip import HALVES, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_STEMS = {
    "v.layernorm_pre": "v.pre_ln",
    "v.layernorm_post": "v.post_ln",
    "v.patch_embedding": "v.patch_embd",
    "v.blk.N.attn_norm": "v.blk.N.ln1",
    "v.blk.N.ffn_norm": "v.blk.N.ln2",
    "v.blk.N.attn_output": "v.blk.N.attn_out",
    "v.blk.N.mlp.fc1": "v.blk.N.ffn_up",
    "v.blk.N.mlp.fc2": "v.blk.N.ffn_down",
    "v.vision_adapter.mlp.fc1": "mm.model.mlp.1",
    "v.vision_adapter.mlp.fc2": "mm.model.mlp.2",
    "mm.linear_1": "mm.model.fc",
}
_NAMES = {"v.positional_embedding_vlm": "v.position_embd.weight", "v.class_embedding": "v.class_embd"}
_COPIED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "image_size", "patch_size")


def _recognises(file: GGUF) -> bool:
    return values.has_any(file, "v.", "mm.")


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.hide("v.", "mm.")
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, "v.", "mm.")
    keys = ClipKeys(draft, uses="gelu")
    keys.sees("llama4")
    draft.put("clip.vision.projector_type", ValueType.STRING, "llama4")
    for name in _COPIED:
        keys.whole(f"vision.{name}", f"llama4.vision.{name}")
    keys.real("vision.attention.layer_norm_epsilon", "llama4.vision.layer_norm_epsilon")
    keys.whole("vision.projection_dim", "llama4.embedding_length")
    ratio = values.real(file, "llama4.vision.pixel_shuffle_ratio", 0.5)
    keys.put_whole("vision.projector.scale_factor", (round(1 / ratio) if ratio > 0.01 else 0) or 2)
    keys.colours(HALVES, HALVES)
    draft.rename(_STEMS, _NAMES)
    draft.widen(lambda recipe: recipe.name == "v.patch_embd.weight")
    return draft


FAMILY = Family(name="llama4", version=1, architectures=("llama4",), recognises=_recognises, derive=_derive)
