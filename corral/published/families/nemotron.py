"""Nemotron 3: other names for what goes into the experts and out of them, and of Nano Omni an encoder of pictures.

What hears (`a.`) is left out, since the engine has no encoder for it; so is the head that guesses further tokens
(`mtp.`), which only makes answers come sooner.
"""

import math

from corral.errors import ModelFileError
from corral.gguf import GGUF, Tensor, ValueType
from corral.gguf.writer import new_tensor
from corral.published import values
from corral.published.clip import CLIP_MEAN, CLIP_STD, ClipKeys
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family
from corral.published.recipe import Recipe, Resampled, widened

_OMNI = "nemotron_h_omni"
_LATENT = {"blk.N.ffn_latent_in": "blk.N.ffn_latent_down", "blk.N.ffn_latent_out": "blk.N.ffn_latent_up"}
_STEMS = {"mm.norm": "mm.model.mlp.0", "mm.1": "mm.model.mlp.1", "mm.2": "mm.model.mlp.3"}
_CLASS = {"v.cls_embd": "v.class_embd"}
_NUMBERS = {
    "block_count": 32,
    "embedding_length": 1280,
    "attention.head_count": 16,
    "patch_size": 16,
    "image_size": 512,
}
_DEFAULT_SCALE = 2
_LARGEST_SIDE = 1024
"""Patches along one side of a picture, at most."""


def _is_latent(tensor: Tensor) -> bool:
    return ".ffn_latent_in" in tensor.name


def _moe_is_published(file: GGUF) -> bool:
    return any(map(_is_latent, file.tensors)) or values.has_any(file, "mtp.")


def _moe(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    _fit_text(draft)
    return Drafts(draft)


def _fit_text(draft: Draft) -> None:
    first = next(filter(_is_latent, draft.file.tensors), None)
    if first is not None:
        width = values.dimension(draft.file, first.name, 1)
        draft.default(f"{draft.architecture}.moe_latent_size", ValueType.UINT32, width)
        draft.rename(_LATENT)
    draft.hide("mtp.")


def _omni(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    has_experts = any(values.whole(file, f"{_OMNI}.{key}", 0) for key in ("expert_count", "expert_used_count"))
    draft.rename_architecture(_OMNI, "nemotron_h_moe" if has_experts else "nemotron_h")
    draft.hide("a.", "v.", "mm.")
    _fit_text(draft)
    return Drafts(draft, _projector(file) if values.has_any(file, "v.") else None)


def _projector(file: GGUF) -> Draft:
    draft = Draft.tower(file, "v.", "mm.")
    draft.hide("mm.a.")
    keys = ClipKeys(draft, uses="gelu")
    draft.put("clip.has_vision_encoder", ValueType.BOOL, value=True)
    draft.put("clip.has_audio_encoder", ValueType.BOOL, value=False)
    draft.put("clip.vision.projector_type", ValueType.STRING, "nemotron_v2_vl")
    prefix = f"{_OMNI}.vision"
    numbers = {name: values.whole(file, f"{prefix}.{name}", number) for name, number in _NUMBERS.items()}
    for name, number in numbers.items():
        keys.put_whole(f"vision.{name}", number)
    width, patch = numbers["embedding_length"], numbers["patch_size"]
    keys.whole("vision.feed_forward_length", f"{prefix}.feed_forward_length", 4 * width)
    keys.whole("vision.projector.scale_factor", f"{prefix}.projector.scale_factor", _DEFAULT_SCALE)
    keys.whole("vision.projection_dim", f"{_OMNI}.embedding_length")
    keys.real("vision.attention.layer_norm_epsilon", f"{prefix}.attention.layer_norm_epsilon", 1e-6)
    keys.colours(CLIP_MEAN, CLIP_STD, source=prefix)
    draft.rename(_STEMS, _CLASS)
    draft.replace("v.patch_embd.weight", _patches(values.tensor(file, "v.patch_embd.weight"), patch, width))
    side = numbers["image_size"] // patch if patch else 0
    source = values.find(file, "v.position_embd") or values.tensor(file, "v.position_embd.weight")
    draft.replace(source.name, _positions(source, side, width))
    return draft


def _patches(source: Tensor, patch: int, width: int) -> Recipe:
    """The convolution, which is published as a matrix: a row for each output, colour by colour."""
    if source.elements != 3 * patch * patch * width:
        raise ModelFileError(
            f'tensor "{source.name}" has the shape {list(source.shape)}, for {width} outputs of patches of {patch}'
        )
    made = widened(source)
    return Recipe(new_tensor(source.name, "F32", (patch, patch, 3, width)), made.sources, made.how)


def _positions(source: Tensor, side: int, width: int) -> Recipe:
    """A row for each patch of a picture of `side` × `side`, between those of the square that is published."""
    shape = tuple(number for number in source.shape if number != 1)
    if len(shape) != 2 or width not in shape or not 0 < side <= _LARGEST_SIDE:
        raise ModelFileError(
            f'tensor "{source.name}" has the shape {list(source.shape)}, for {side}×{side} patches of {width}'
        )
    is_by_row = shape[0] == width
    count = shape[1] if is_by_row else shape[0]
    if math.isqrt(count) ** 2 != count:
        raise ModelFileError(f'tensor "{source.name}" has {count} positions, which are no square')
    tensor = new_tensor("v.position_embd.weight", "F32", (width, side * side))
    return Recipe(tensor, (source,), Resampled(math.isqrt(count), side, is_by_row=is_by_row))


FAMILIES = (
    Family(
        name="nemotron",
        version=1,
        architectures=("nemotron_h", "nemotron_h_moe"),
        recognises=_moe_is_published,
        derive=_moe,
    ),
    Family(name="nemotron-omni", version=1, architectures=(_OMNI,), recognises=lambda file: True, derive=_omni),
)
