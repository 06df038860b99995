"""Mistral Small 3.1, Ministral 3 and others: old names of the rope's numbers, and Pixtral's encoder of pictures."""

from corral.errors import ModelFileError
from corral.gguf import GGUF, Tensor
from corral.gguf.writer import new_tensor
from corral.published import values
from corral.published.clip import CLIP_MEAN, CLIP_STD, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family
from corral.published.recipe import HalvesInterleaved, Recipe, Widened, Zeros, row_of

_KEYS = {
    "mistral3.rope.scaling.beta_fast": "mistral3.rope.scaling.yarn_beta_fast",
    "mistral3.rope.scaling.beta_slow": "mistral3.rope.scaling.yarn_beta_slow",
    "mistral3.rope.scaling.mscale_all_dim": "mistral3.rope.scaling.yarn_log_multiplier",
    "mistral3.rope.scaling_beta": "mistral3.attention.temperature_scale",
}
_MARKS = ("rope.scaling.beta_fast", "rope.scaling.mscale_all_dim", "rope.scaling_beta")
_STEMS = {
    "v.patch_conv": "v.patch_embd",
    "v.encoder_norm": "v.pre_ln",
    "v.blk.N.attn_norm": "v.blk.N.ln1",
    "v.blk.N.ffn_norm": "v.blk.N.ln2",
    "v.blk.N.attn_output": "v.blk.N.attn_out",
    "mm.linear_1": "mm.1",
    "mm.linear_2": "mm.2",
    "mm.norm": "mm.input_norm",
    "mm.patch_merger.merging_layer": "mm.patch_merger",
}
_COPIED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "image_size", "patch_size")
_BREAK = "[IMG_BREAK]"


def _recognises(file: GGUF) -> bool:
    return values.has_any(file, "v.", "mm.") or any(f"mistral3.{mark}" in file.metadata for mark in _MARKS)


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    for old, new in _KEYS.items():
        draft.rename_key(old, new)
    draft.default_text("tokenizer.ggml.pre", "tekken")
    draft.hide("v.", "mm.")
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, "v.", "mm.")
    keys = ClipKeys(draft, uses="silu")
    keys.sees("pixtral")
    for name in _COPIED:
        keys.whole(f"vision.{name}", f"mistral3.vision.{name}")
    keys.whole("vision.spatial_merge_size", "mistral3.spatial_merge_size")
    keys.real("rope.freq_base", "mistral3.vision.rope.freq_base", 10000.0)
    keys.whole("vision.projection_dim", "mistral3.embedding_length")
    keys.real("vision.attention.layer_norm_epsilon", "mistral3.vision.attention.layer_norm_epsilon", 1e-5)
    keys.colours(CLIP_MEAN, CLIP_STD, source="mistral3.vision")
    draft.rename(_STEMS)
    draft.widen(lambda recipe: recipe.name == "v.patch_embd.weight")
    heads = values.whole(file, "mistral3.vision.attention.head_count")
    for recipe in list(draft.recipes):
        if recipe.name.startswith("v.blk.") and recipe.name.endswith((".attn_q.weight", ".attn_k.weight")):
            draft.replace(recipe.name, _interleaved(recipe, heads))
    draft.add(_row_break(file))
    return draft


def _interleaved(recipe: Recipe, heads: int) -> Recipe:
    """The rows of each head in the order that the engine rotates them in."""
    tensor = recipe.tensor
    if len(tensor.shape) != 2 or heads < 1 or tensor.shape[1] % (2 * heads):
        raise ModelFileError(f'tensor "{tensor.name}" has the shape {list(tensor.shape)}, for {heads} heads')
    return Recipe(tensor, recipe.sources, HalvesInterleaved(heads))


def _row_break(file: GGUF) -> Recipe:
    """What stands between two rows of patches: the embedding of its token, or nothing where there is none."""
    name, embeddings = "v.token_embd.img_break", values.tensor(file, "token_embd.weight")
    tensor = new_tensor(name, "F32", embeddings.shape[:1])
    number = _token(file, embeddings)
    if number is None:
        return Recipe(tensor, (), Zeros())
    return Recipe(tensor, (row_of(embeddings, number),), Widened())


def _token(file: GGUF, embeddings: Tensor) -> int | None:
    tokens = file.values("tokenizer.ggml.tokens") if "tokenizer.ggml.tokens" in file.metadata else []
    number = tokens.index(_BREAK) if _BREAK in tokens else None
    return number if number is not None and number < (*embeddings.shape, 1)[1] else None


FAMILY = Family(name="mistral3", version=1, architectures=("mistral3",), recognises=_recognises, derive=_derive)
