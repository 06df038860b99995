"""DeepSeek OCR: DeepSeek 2 without latent attention, and two encoders of pictures (SAM, CLIP) in the same file."""

from corral.errors import ModelFileError
from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.clip import HALVES, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_ENCODERS = ("s.", "v.", "mm.")
_STEMS = {
    "s.patch_embd": "v.sam.patch_embd",
    "s.blk.N.norm1": "v.sam.blk.N.pre_ln",
    "s.blk.N.norm2": "v.sam.blk.N.post_ln",
    "s.blk.N.attn.qkv": "v.sam.blk.N.attn.qkv",
    "s.blk.N.attn.proj": "v.sam.blk.N.attn.out",
    "s.blk.N.mlp.lin1": "v.sam.blk.N.mlp.lin1",
    "s.blk.N.mlp.lin2": "v.sam.blk.N.mlp.lin2",
    **{f"s.neck.{number}": f"v.sam.neck.{number}" for number in range(4)},
    "s.net_2": "v.sam.net_2",
    "s.net_3": "v.sam.net_3",
    "v.pre_layrnorm": "v.pre_ln",
    "v.blk.N.self_attn.qkv_proj": "v.blk.N.attn_qkv",
    "v.blk.N.self_attn.out_proj": "v.blk.N.attn_out",
    "v.blk.N.layer_norm1": "v.blk.N.ln1",
    "v.blk.N.layer_norm2": "v.blk.N.ln2",
    "v.blk.N.mlp.fc1": "v.blk.N.ffn_up",
    "v.blk.N.mlp.fc2": "v.blk.N.ffn_down",
    "mm.layers": "mm.model.fc",
}
_NAMES = {
    "s.position_embd": "v.sam.pos_embd.weight",
    "s.blk.N.attn.rel_pos_h": "v.sam.blk.N.attn.pos_h.weight",
    "s.blk.N.attn.rel_pos_w": "v.sam.blk.N.attn.pos_w.weight",
    "mm.image_newline": "v.image_newline",
    "mm.view_seperator": "v.view_seperator",
}
_WIDE = ("patch_embd.weight", ".pos_embd.weight", ".pos_h.weight", ".pos_w.weight")
"""How names of tensors end that the engine resizes or adds as F32 only."""


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_architecture("deepseekocr", "deepseek2-ocr")
    draft.default("deepseek2-ocr.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, 1e-6)
    inner = _size(file, "expert_feed_forward_length", "blk.1.ffn_down_exps.weight")
    if not inner:
        raise ModelFileError('key "deepseekocr.expert_feed_forward_length" is 0')
    draft.default("deepseek2-ocr.expert_feed_forward_length", ValueType.UINT32, inner)
    if "deepseekocr.expert_shared_count" not in file.metadata:
        shared = values.dimension(file, "blk.1.ffn_down_shexp.weight", 0)
        draft.default("deepseek2-ocr.expert_shared_count", ValueType.UINT32, shared // inner)
    draft.hide(*_ENCODERS)
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _size(file: GGUF, name: str, tensor: str) -> int:
    """A key's number, or where it is missing the length of a tensor's rows."""
    key = f"deepseekocr.{name}"
    return values.whole(file, key) if key in file.metadata else values.dimension(file, tensor, 0)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, *_ENCODERS)
    keys = ClipKeys(draft, uses="gelu")
    keys.sees("deepseekocr")
    for name in ("block_count", "embedding_length", "image_size", "patch_size"):
        keys.whole(f"vision.{name}", f"deepseekocr.vision.{name}")
    keys.whole("vision.attention.head_count", "deepseekocr.vision.head_count")
    for name in ("block_count", "embedding_length", "head_count"):
        keys.whole(f"vision.sam.{name}", f"deepseekocr.sam.{name}")
    for name, number in (("feed_forward_length", 64), ("projection_dim", 1280), ("window_size", 14)):
        keys.whole(f"vision.{name}", f"deepseekocr.vision.{name}", number)
    keys.whole("vision.projector.scale_factor", "deepseekocr.vision.projector.scale_factor", 1)
    keys.real("vision.attention.layer_norm_epsilon", "deepseekocr.vision.attention.layer_norm_epsilon", 1e-6)
    keys.colours(HALVES, HALVES)
    draft.rename(_STEMS, _NAMES)
    draft.widen(lambda recipe: recipe.name.endswith(_WIDE))
    return draft


FAMILY = Family(
    name="deepseekocr", version=1, architectures=("deepseekocr",), recognises=lambda file: True, derive=_derive
)
