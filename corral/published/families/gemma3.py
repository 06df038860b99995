"""Gemma 3: old names of the rope bases, and from 4b on an encoder of pictures (SigLIP) in the model's file."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.clip import HALVES, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_MARKS = (
    *("gemma3.mm.tokens_per_image", "gemma3.rope.global.freq_base", "gemma3.rope.local.freq_base"),
    *("tokenizer.ggml.add_padding_token", "tokenizer.ggml.add_unknown_token"),
)
_EPSILON = "gemma3.attention.layer_norm_rms_epsilon"
_LONG = 131072
"""The context length, in tokens, from which on the model was trained with scaled positions."""

_YARN = {
    "gemma3.rope.scaling.beta_fast": "gemma3.rope.scaling.yarn_beta_fast",
    "gemma3.rope.scaling.beta_slow": "gemma3.rope.scaling.yarn_beta_slow",
    "gemma3.rope.scaling.extrapolation_factor": "gemma3.rope.scaling.yarn_ext_factor",
}
_STEMS = {
    "v.patch_embedding": "v.patch_embd",
    "v.position_embedding": "v.position_embd",
    "v.post_layernorm": "v.post_ln",
    "v.blk.N.layer_norm1": "v.blk.N.ln1",
    "v.blk.N.layer_norm2": "v.blk.N.ln2",
    "v.blk.N.attn_output": "v.blk.N.attn_out",
    "v.blk.N.mlp.fc1": "v.blk.N.ffn_up",
    "v.blk.N.mlp.fc2": "v.blk.N.ffn_down",
    "mm.mm_input_projection": "mm.input_projection",
    "mm.mm_soft_emb_norm": "mm.soft_emb_norm",
}


def _recognises(file: GGUF) -> bool:
    marks = any(key in file.metadata for key in _MARKS) or _EPSILON not in file.metadata
    return marks or values.has_any(file, "v.", "mm.")


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_key("gemma3.rope.global.freq_base", "gemma3.rope.freq_base")
    draft.rename_key("gemma3.rope.local.freq_base", "gemma3.rope.freq_base_swa")
    draft.default("gemma3.rope.freq_base", ValueType.FLOAT32, 1000000.0)
    draft.default("gemma3.rope.freq_base_swa", ValueType.FLOAT32, 10000.0)
    draft.default(_EPSILON, ValueType.FLOAT32, 1e-6)
    for source, target in _YARN.items():
        draft.rename_key(source, target)
    if values.whole(file, "gemma3.context_length", 0) >= _LONG:
        draft.default("gemma3.rope.scaling.type", ValueType.STRING, "linear")
        draft.default("gemma3.rope.scaling.factor", ValueType.FLOAT32, 8.0)
    draft.hide("v.", "mm.")
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, "v.", "mm.")
    keys = ClipKeys(draft, uses="gelu")
    keys.sees("gemma3")
    for name in ("block_count", "embedding_length", "feed_forward_length", "image_size", "patch_size"):
        keys.whole(f"vision.{name}", f"gemma3.vision.{name}")
    keys.whole("vision.attention.head_count", "gemma3.vision.attention.head_count")
    keys.real("vision.attention.layer_norm_epsilon", "gemma3.vision.attention.layer_norm_epsilon")
    keys.whole("vision.projection_dim", "gemma3.embedding_length")
    keys.colours(HALVES, HALVES)
    draft.rename(_STEMS)
    draft.widen(lambda recipe: recipe.name == "v.patch_embd.weight")
    return draft


FAMILY = Family(name="gemma3", version=1, architectures=("gemma3",), recognises=_recognises, derive=_derive)
