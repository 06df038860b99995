"""Qwen 3.5 and 3.6, dense and with experts: numbers by layer as one, and an encoder of pictures.

The head that guesses further tokens (`mtp.`) is left out: it only makes answers come sooner.
"""

from corral.gguf import GGUF, Array, ValueType
from corral.published import values
from corral.published.draft import Draft
from corral.published.families import qwen_tower
from corral.published.plan import Drafts, Family

_MARKS = ("vision.block_count", "image_token_id", "ssm.v_head_reordered", "rope.mrope_interleaved")
_HEADS = 2
"""Of keys and values, where a file says 0 for every layer."""


def _recognises(file: GGUF) -> bool:
    marks = (*_MARKS, *(("feed_forward_length",) if file.architecture == "qwen35moe" else ()))
    keys = any(f"{file.architecture}.{mark}" in file.metadata for mark in marks)
    return keys or values.has_any(file, "mtp.", "v.")


def _derive(file: GGUF) -> Drafts:
    architecture = file.architecture
    draft = Draft.of(file)
    heads = f"{architecture}.attention.head_count_kv"
    if isinstance(file.metadata.get(heads), Array):
        draft.put(heads, ValueType.UINT32, max(values.integers(file, heads), default=0) or _HEADS)
    _put_sections(draft, architecture)
    draft.rename({}, {"blk.N.ssm_dt": "blk.N.ssm_dt.bias"})
    draft.hide("v.", "mm.", "mtp.")
    return Drafts(draft, qwen_tower.projector(file)[0] if values.has_any(file, "v.") else None)


def _put_sections(draft: Draft, architecture: str) -> None:
    """Four sections of positions, of which published files have three."""
    sections = f"{architecture}.rope.dimension_sections"
    names = (sections, f"{architecture}.rope.mrope_section", f"{architecture}.mrope_sections")
    name = next((name for name in names if name in draft.file.metadata), None)
    if name is None:
        return
    found = values.integers(draft.file, name)
    if name != sections or len(found) != 4:
        draft.put_array(sections, ValueType.INT32, [*found, 0, 0, 0, 0][:4])


FAMILY = Family(name="qwen35", version=1, architectures=("qwen35", "qwen35moe"), recognises=_recognises, derive=_derive)
