"""The encoder of pictures of Qwen 3 VL and Qwen 3.5: one matrix for queries, keys and values, two for a patch."""

import math
import re
from collections.abc import Sequence

from corral.errors import ModelFileError
from corral.gguf import GGUF
from corral.published import values
from corral.published.clip import HALVES, ClipKeys
from corral.published.draft import Draft
from corral.published.recipe import joined, patch_slices

_STEMS = {
    "v.blk.N.norm1": "v.blk.N.ln1",
    "v.blk.N.norm2": "v.blk.N.ln2",
    "v.blk.N.mlp.linear_fc1": "v.blk.N.ffn_up",
    "v.blk.N.mlp.linear_fc2": "v.blk.N.ffn_down",
    "v.merger.norm": "v.post_ln",
    "v.merger.linear_fc1": "mm.0",
    "v.merger.linear_fc2": "mm.2",
    "v.pos_embed": "v.position_embd",
    "v.patch_embed": "v.patch_embd",
}
_COPIED = ("attention.head_count", "block_count", "embedding_length", "patch_size", "spatial_merge_size")
_DEEPSTACK = re.compile(r"v\.deepstack_merger\.(\d+)\.(?:(norm)|linear_(fc[12]))(\..+)")
_QUERY = re.compile(r"(v\.blk\.\d+\.)attn_q(\.weight|\.bias)")


def projector(file: GGUF, *, deepstack: Sequence[int] = ()) -> tuple[Draft, ClipKeys]:
    """The encoder in the engine's layout; `deepstack` are the blocks whose states go to the model as well."""
    architecture = file.architecture
    draft = Draft.tower(file, "v.", "mm.")
    keys = ClipKeys(draft, uses="gelu")
    keys.sees("qwen3vl_merger")
    for name in _COPIED:
        keys.whole(f"vision.{name}", f"{architecture}.vision.{name}")
    keys.real("vision.attention.layer_norm_epsilon", f"{architecture}.vision.attention.layer_norm_epsilon", 1e-6)
    keys.whole("vision.projection_dim", f"{architecture}.embedding_length")
    keys.put_whole("vision.feed_forward_length", values.dimension(file, "v.blk.0.mlp.linear_fc1.weight", 1))
    side = math.isqrt(values.dimension(file, "v.pos_embed.weight", 1))
    keys.put_whole("vision.image_size", side * values.whole(file, f"{architecture}.vision.patch_size"))
    keys.colours(HALVES, HALVES, source=f"{architecture}.vision")
    _split_patches(draft)
    _join_attention(draft)
    draft.rename(_STEMS, _deepstack_names(draft, deepstack))
    return draft, keys


def _split_patches(draft: Draft) -> None:
    source = values.tensor(draft.file, "v.patch_embed.weight")
    draft.replace(source.name, *patch_slices(source, "v.patch_embd.weight", "v.patch_embd.weight.1"))


def _join_attention(draft: Draft) -> None:
    for name in sorted(draft.names):
        if match := _QUERY.fullmatch(name):
            names = [f"{match[1]}attn_{part}{match[2]}" for part in "qkv"]
            sources = [values.tensor(draft.file, one) for one in names]
            draft.replace(name, joined(sources, f"{match[1]}attn_qkv{match[2]}"))
            draft.recipes = [recipe for recipe in draft.recipes if recipe.name not in names[1:]]


def _deepstack_names(draft: Draft, blocks: Sequence[int]) -> dict[str, str]:
    """Published they are counted through; the engine calls them by the block they belong to."""
    found = {}
    for name in draft.names:
        if match := _DEEPSTACK.fullmatch(name):
            number = int(match[1])
            if number >= len(blocks):
                raise ModelFileError(f'tensor "{name}" is one of more than the {len(blocks)} blocks that are named')
            found[name] = f"v.deepstack.{blocks[number]}.{match[2] or match[3]}{match[4]}"
    return found
