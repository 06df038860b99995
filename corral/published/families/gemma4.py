"""Gemma 4: another word for its tokenizer, and encoders of pictures and (e2b, e4b) of sounds in the model's file."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.clip import ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_ENCODERS = ("a.", "v.", "mm.", "model.vision_tower.")
_TOKENIZER = "tokenizer.ggml.model"
_SCALES = {"blk.N.ffn_gate_inp.per_expert_scale": "blk.N.ffn_down_exps.scale"}
_COPIED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")
_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_FIRST_IN = {"a.pre_encode.out.weight": "a.input_projection.weight"}
_THEN_OUT = {"mm.a.fc": "a.pre_encode.out"}
_FIRST_NORMS = {"a.blk.N.ln1": "a.blk.N.attn_pre_norm", "a.blk.N.ln2": "a.blk.N.attn_post_norm"}
_THEN_NORMS = {"a.blk.N.layer_pre_norm": "a.blk.N.ln2", "a.blk.N.linear_pos": "a.blk.N.attn_k_rel"}
"""Renamed in this order: what comes later takes a name that was given up before."""

_CONVOLUTIONS = ("v.patch_embd.weight", ".conv_dw.weight")
"""How names of tensors end that the engine multiplies as F32 only."""


def _recognises(file: GGUF) -> bool:
    return values.has_any(file, *_ENCODERS) or file.metadata.get(_TOKENIZER) == "llama"


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    if draft.text(_TOKENIZER) == "llama":
        draft.put(_TOKENIZER, ValueType.STRING, "gemma4")
    draft.rename({}, _SCALES)
    draft.hide(*_ENCODERS)
    return Drafts(draft, _projector(file) if values.has_any(file, "v.", "a.") else None)


def _projector(file: GGUF) -> Draft:
    """One file for both encoders."""
    draft = Draft.tower(file, "v.", "a.", "mm.")
    draft.hide("v.clamp_data")  # the bounds of all layers once more
    keys = ClipKeys(draft)
    if values.has_any(file, "v."):
        _pictures(file, keys)
    if values.has_any(file, "a."):
        _sounds(keys)
        draft.rename({}, _FIRST_IN)
        draft.rename(_THEN_OUT)
        draft.rename(_FIRST_NORMS)
        draft.rename(_THEN_NORMS)
    draft.widen(lambda recipe: recipe.name.endswith(_CONVOLUTIONS))
    return draft


def _pictures(file: GGUF, keys: ClipKeys) -> None:
    keys.encodes("vision", "gemma4v")
    for name in (*_COPIED, "patch_size"):
        keys.whole(f"vision.{name}", f"gemma4.vision.{name}")
    keys.whole("vision.image_size", "gemma4.vision.image_size", 224)
    keys.whole("vision.projection_dim", "gemma4.embedding_length")
    keys.real("vision.attention.layer_norm_epsilon", "gemma4.vision.attention.layer_norm_epsilon")
    if "gemma4.vision.projector.scale_factor" in file.metadata:
        keys.whole("vision.projector.scale_factor", "gemma4.vision.projector.scale_factor")
    keys.colours(_BLACK, _WHITE)


def _sounds(keys: ClipKeys) -> None:
    keys.encodes("audio", "gemma4a")
    for name in _COPIED:
        keys.whole(f"audio.{name}", f"gemma4.audio.{name}")
    keys.whole("audio.num_mel_bins", "gemma4.audio.num_mel_bins", 128)
    keys.whole("audio.projection_dim", "gemma4.embedding_length")
    keys.real("audio.attention.layer_norm_epsilon", "gemma4.audio.attention.layer_norm_epsilon")


FAMILY = Family(name="gemma4", version=1, architectures=("gemma4",), recognises=_recognises, derive=_derive)
