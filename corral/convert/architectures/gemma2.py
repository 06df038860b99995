"""Gemma2ForCausalLM: every other layer looks back at a window, and logits are capped."""

import math

from gguf import MODEL_ARCH
from gguf.constants import Keys

from corral.convert import rope
from corral.convert.architectures import decoder, gemma
from corral.convert.architectures.decoder import Sizes
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan
from corral.convert.hyperparameters import Hyperparameters
from corral.errors import ModelFileError
from corral.gguf.file import MAX_LAYERS

NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)

_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""What holds for a configuration that leaves them out; null means none."""

_NO_CAP = 1e6
"""A cap so high that it changes nothing, since the engine caps in any case."""

_LARGEST = 46
"""Layers of the 27B model, which the engine knows by them and scales attention otherwise."""


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters.laid_over(_CAPS)
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.GEMMA2, sizes.layers)
    decoder.set_sizes(draft, given, sizes)
    decoder.set_whole_rope(draft, given, sizes)
    set_windows(draft, given, sizes, usual_period=2)
    check_scale(given, sizes, largest=_LARGEST)
    for key, name in (
        (Keys.LLM.ATTN_LOGIT_SOFTCAPPING, "attn_logit_softcapping"),
        (Keys.LLM.FINAL_LOGIT_SOFTCAPPING, "final_logit_softcapping"),
    ):
        draft.set_number(key, given.number(name, _NO_CAP))
    gemma.add_blocks(draft, given, sizes, NORMS)
    return decoder.finished(draft, sizes)


def set_windows(draft: Draft, given: Hyperparameters, sizes: Sizes, usual_period: int) -> None:
    """The window, and which layers look at all: the last of each period."""
    period = _period(given, sizes, usual_period)
    if period == 1:
        raise ModelFileError("a Gemma none of whose layers looks back at a window is not supported by the engine")
    draft.set_integer(Keys.Attention.SLIDING_WINDOW, given.integer("sliding_window", 4096, most=rope.MAX_LENGTH))
    if period != usual_period:
        draft.set_integer(Keys.Attention.SLIDING_WINDOW_PATTERN, period)


def check_scale(given: Hyperparameters, sizes: Sizes, largest: int) -> None:
    """Raises unless attention is scaled as the engine does it: by the heads' width, but in the largest model."""
    wanted = sizes.width // sizes.heads if sizes.layers == largest else sizes.head_width
    scalar = given.number("query_pre_attn_scalar", 256.0)
    if not math.isclose(scalar, wanted, rel_tol=1e-6):
        raise ModelFileError(f'config.json: "query_pre_attn_scalar" is {scalar:g}, where the engine takes {wanted}')


def _period(given: Hyperparameters, sizes: Sizes, usual: int) -> int:
    types: list[str] | None = given.texts("layer_types")
    if types is None:
        key = "sliding_window_pattern" if given.has("sliding_window_pattern") else "_sliding_window_pattern"
        return given.integer(key, usual, most=MAX_LAYERS)
    periods: list[int] = [usual, *range(1, sizes.layers + 2)]
    for period in periods:
        pattern = [
            "full_attention" if layer % period == period - 1 else "sliding_attention" for layer in range(len(types))
        ]
        if types == pattern and len(types) == sizes.layers:
            return period
    raise ModelFileError('config.json: "layer_types" have no period, which the engine cannot compute')
