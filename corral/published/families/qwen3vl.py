"""Qwen 3 VL, dense and with experts: sections of positions by another name, and an encoder of pictures."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.draft import Draft
from corral.published.families import qwen_tower
from corral.published.plan import Drafts, Family

_SECTIONS = [24, 20, 20]
"""Of every published size, where a file does not say."""


def _recognises(file: GGUF) -> bool:
    return f"{file.architecture}.rope.dimension_sections" not in file.metadata or values.has_any(file, "v.")


def _derive(file: GGUF) -> Drafts:
    architecture = file.architecture
    draft = Draft.of(file)
    sections = f"{architecture}.rope.dimension_sections"
    if sections not in file.metadata:
        found = values.integers(file, f"{architecture}.rope.mrope_section", _SECTIONS)
        draft.put_array(sections, ValueType.INT32, [*found, 0, 0, 0, 0][:4])
    blocks = values.integers(file, f"{architecture}.vision.deepstack_visual_indexes", [])
    draft.default(f"{architecture}.n_deepstack_layers", ValueType.UINT32, len(blocks))
    draft.hide("v.", "mm.")
    if not values.has_any(file, "v."):
        return Drafts(draft)
    encoder, keys = qwen_tower.projector(file, deepstack=blocks)
    keys.whole("vision.image_min_pixels", f"{architecture}.vision.shortest_edge", 65536)
    keys.whole("vision.image_max_pixels", f"{architecture}.vision.longest_edge", 16777216)
    layers = values.whole(file, f"{architecture}.vision.block_count")
    mask = [number in blocks for number in range(min(layers, 512))]
    encoder.put_array("clip.vision.is_deepstack_layers", ValueType.BOOL, mask)
    return Drafts(draft, encoder)


FAMILY = Family(
    name="qwen3vl", version=1, architectures=("qwen3vl", "qwen3vlmoe"), recognises=_recognises, derive=_derive
)
