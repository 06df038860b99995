"""GLM OCR, which the engine runs as GLM 4: two matrices of each feed-forward in one, and an encoder of pictures."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.clip import CLIP_MEAN, CLIP_STD, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family
from corral.published.recipe import joined

_STEMS = {
    "blk.N.attn_out": "blk.N.attn_output",
    "blk.N.post_attn_norm": "blk.N.post_attention_norm",
    "blk.N.post_ffn_norm": "blk.N.post_ffw_norm",
}
_PATCHES = {"v.patch_embd_0.weight": "v.patch_embd.weight", "v.patch_embd_1.weight": "v.patch_embd.weight.1"}
_COPIED = ("block_count", "embedding_length", "attention.head_count", "image_size", "patch_size", "spatial_merge_size")
_GATE = ".ffn_gate.weight"


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_architecture("glmocr", "glm4")
    sections = values.integers(file, "glmocr.rope.mrope_section")
    draft.put_array("glm4.rope.dimension_sections", ValueType.INT32, [*sections, 0, 0, 0, 0][:4])
    draft.drop("glm4.rope.mrope_section")
    if "glmocr.rope.dimension_count" not in file.metadata:
        width = values.whole(file, "glmocr.attention.key_length")
        part = values.real(file, "glmocr.rope.partial_rotary_factor", 1.0)
        draft.default("glm4.rope.dimension_count", ValueType.UINT32, int(width * min(max(part, 0), 1)))
    draft.put("tokenizer.ggml.pre", ValueType.STRING, "chatglm-bpe")
    draft.rename(_STEMS)
    for gate in [recipe.name for recipe in draft.recipes if recipe.name.endswith(_GATE)]:
        if gate.startswith("blk."):
            _join_gate(draft, gate)
    draft.hide("v.", "mm.")
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _join_gate(draft: Draft, gate: str) -> None:
    """The rows of the gate, then those of what it lets through, as one matrix."""
    up = gate.replace(_GATE, ".ffn_up.weight")
    sources = [values.tensor(draft.file, name) for name in (gate, up)]
    draft.replace(up, joined(sources, up))
    draft.replace(gate)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, "v.", "mm.")
    keys = ClipKeys(draft, uses="silu")
    keys.sees("glm4v")
    for name in _COPIED:
        keys.whole(f"vision.{name}", f"glmocr.vision.{name}")
    keys.whole("vision.feed_forward_length", "glmocr.vision.intermediate_size")
    keys.whole("vision.projection_dim", "glmocr.vision.out_hidden_size")
    keys.real("vision.attention.layer_norm_epsilon", "glmocr.vision.attention.layer_norm_rms_epsilon")
    keys.colours(CLIP_MEAN, CLIP_STD, source="glmocr.vision")
    draft.rename({}, _PATCHES)
    draft.widen(lambda recipe: recipe.name.startswith("v.patch_embd.weight"))
    return draft


FAMILY = Family(name="glmocr", version=1, architectures=("glmocr",), recognises=lambda file: True, derive=_derive)
