"""Rotary position embeddings: what `config.json` says of them, as keys and tensors of GGUF.

Older configurations have `rope_theta` and `rope_scaling`, newer ones `rope_parameters`, by kinds of layers where these
differ. Formulas: "Extending context window via positional interpolation" (linear), Llama 3.1's published factors
(llama3), YaRN (arXiv 2309.00071), LongRoPE (arXiv 2402.13753).
"""

import math

from gguf import MODEL_TENSOR
from gguf.constants import Keys
from msgspec import Struct

from corral.convert.draft import Draft
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.safetensors import shortened
from corral.errors import ModelFileError

MAX_LENGTH = (1 << 31) - 1
_DEFAULT_BASE = 10000.0


class Rope(Struct, frozen=True):
    """How positions turn: base of the angles, kind of scaling and its numbers."""

    base: float
    kind: str
    scaling: Hyperparameters


def read(hyperparameters: Hyperparameters, layer_type: str = "full_attention", base: float = _DEFAULT_BASE) -> Rope:
    """What holds for layers of a type; `base` is the default of the architecture."""
    new = hyperparameters.section("rope_parameters")
    scaling = new if hyperparameters.has("rope_parameters") else hyperparameters.section("rope_scaling")
    if new.has(layer_type):
        scaling = new.section(layer_type)
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    theta = scaling if scaling.has("rope_theta") else hyperparameters
    return Rope(theta.number("rope_theta", base, most=1e15), {"su": "longrope"}.get(kind, kind), scaling)


def partial_factor(hyperparameters: Hyperparameters, rope: Rope) -> float:
    """Which part of a head is turned, above 0 and up to 1."""
    source = rope.scaling if rope.scaling.has("partial_rotary_factor") else hyperparameters
    return source.number("partial_rotary_factor", 1.0, most=1.0)


def write(draft: Draft, hyperparameters: Hyperparameters, rope: Rope, width: int, context_length: int) -> None:
    """Adds keys and tensors for heads of which `width` elements are turned."""
    draft.set_integer(Keys.Rope.DIMENSION_COUNT, width)
    draft.set_number(Keys.Rope.FREQ_BASE, rope.base)
    match rope.kind:
        case "default" | "dynamic":  # the latter differs beyond the context length only
            pass
        case "linear":
            draft.set_text(Keys.Rope.SCALING_TYPE, "linear")
            draft.set_number(Keys.Rope.SCALING_FACTOR, rope.scaling.number("factor"))
        case "llama3":
            draft.given(MODEL_TENSOR.ROPE_FREQS, _llama3_factors(rope, width))
        case "yarn":
            _write_yarn(draft, hyperparameters, rope, context_length)
        case "longrope":
            _write_longrope(draft, hyperparameters, rope, width, context_length)
        case other:
            raise ModelFileError(f'rope scaling of the kind "{shortened(other)}" is not supported by the engine')


def _llama3_factors(rope: Rope, width: int) -> list[float]:
    """What each frequency is divided by: 1 for short waves, `factor` for long ones, in between by how long."""
    scaling = rope.scaling
    factor = scaling.number("factor", most=1e6)
    low, high = scaling.number("low_freq_factor", most=1e6), scaling.number("high_freq_factor", most=1e6)
    original = scaling.integer("original_max_position_embeddings", most=MAX_LENGTH)
    if high <= low:
        raise ModelFileError(f'config.json: "high_freq_factor" is {high:g}, not above "low_freq_factor" {low:g}')
    found = []
    for number in range(0, width, 2):
        wavelength = 2 * math.pi * rope.base ** (number / width)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def _write_yarn(draft: Draft, hyperparameters: Hyperparameters, rope: Rope, context_length: int) -> None:
    scaling = rope.scaling
    factor = scaling.number("factor", least=0.999, most=1e6)
    draft.set_text(Keys.Rope.SCALING_TYPE, "yarn")
    draft.set_number(Keys.Rope.SCALING_FACTOR, factor)
    draft.set_integer(Keys.Rope.SCALING_ORIG_CTX_LEN, _original_length(hyperparameters, scaling, context_length))
    if scaling.has("beta_fast"):
        draft.set_number(Keys.Rope.SCALING_YARN_BETA_FAST, scaling.number("beta_fast"))
    if scaling.has("beta_slow"):
        draft.set_number(Keys.Rope.SCALING_YARN_BETA_SLOW, scaling.number("beta_slow"))
    usual = 0.1 * math.log(factor) + 1  # the engine multiplies by this itself
    wanted = usual
    if scaling.has("attention_factor"):
        wanted = scaling.number("attention_factor")
    elif scaling.has("mscale") and scaling.has("mscale_all_dim"):
        mscale, all_dim = scaling.number("mscale"), scaling.number("mscale_all_dim")
        wanted = (0.1 * mscale * math.log(factor) + 1) / (0.1 * all_dim * math.log(factor) + 1)
    if not math.isclose(wanted, usual, rel_tol=1e-6):
        draft.set_number(Keys.Rope.SCALING_ATTN_FACTOR, wanted / usual)


def _write_longrope(
    draft: Draft, hyperparameters: Hyperparameters, rope: Rope, width: int, context_length: int
) -> None:
    scaling = rope.scaling
    original = _original_length(hyperparameters, scaling, context_length)
    stretch = scaling.number("factor", context_length / original, most=1e6)
    attention = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 and original > 1 else 1.0
    draft.set_text(Keys.Rope.SCALING_TYPE, "longrope")
    draft.set_integer(Keys.Rope.SCALING_ORIG_CTX_LEN, original)
    draft.set_number(Keys.Rope.SCALING_ATTN_FACTOR, scaling.number("attention_factor", attention))
    draft.given(MODEL_TENSOR.ROPE_FACTORS_LONG, scaling.numbers("long_factor", width // 2))
    draft.given(MODEL_TENSOR.ROPE_FACTORS_SHORT, scaling.numbers("short_factor", width // 2))


def _original_length(hyperparameters: Hyperparameters, scaling: Hyperparameters, context_length: int) -> int:
    key = "original_max_position_embeddings"
    source = scaling if scaling.has(key) else hyperparameters
    return source.integer(key, context_length, most=MAX_LENGTH)
