"""Gemma3ForCausalLM, and the text model within Gemma3ForConditionalGeneration; its pictures are left out."""

import logging

from gguf import MODEL_ARCH
from gguf.constants import Keys

from corral.convert import rope
from corral.convert.architectures import decoder, gemma, gemma2
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.recipe import one_added

log = logging.getLogger(__name__)

_DEFAULTS = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
}
"""What a published configuration leaves out of its text model (transformers' `Gemma3TextConfig`)."""

_LARGEST = 62
"""Layers of the 27B model, which the engine knows by them and scales attention otherwise."""

_RENAMED = (
    ("language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of a text model; `ModelFileError` for a configuration the engine cannot compute."""
    draft, vocabulary = _draft(checkpoint.hyperparameters)
    return draft.plan(vocabulary, renamed=decoder.RENAMED, ignored=decoder.IGNORED)


def plan_of_text(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the text model within one that sees; else as `plan`."""
    draft, vocabulary = _draft(checkpoint.hyperparameters.section("text_config"))
    log.warning("the text model is converted alone: it sees no pictures")
    ignored = (*decoder.IGNORED, r"(vision_tower|multi_modal_projector)\..*")
    return draft.plan(vocabulary, renamed=_RENAMED, ignored=ignored)


def _draft(found: Hyperparameters) -> tuple[Draft, int]:
    """The draft, and how many tokens the vocabulary has."""
    given = found.laid_over(_DEFAULTS)
    given.one_of("use_bidirectional_attention", [False], False)
    given.one_of("attn_logit_softcapping", [], None)
    given.one_of("final_logit_softcapping", [], None)
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.GEMMA3, sizes.layers)
    decoder.set_sizes(draft, given, sizes)
    gemma2.set_windows(draft, given, sizes, usual_period=6)
    gemma2.check_scale(given, sizes, largest=_LARGEST)
    turned = rope.read(given, "full_attention", 1e6)
    rope.write(draft, given, turned, sizes.head_width, sizes.context_length)
    draft.set_number(Keys.Rope.FREQ_BASE_SWA, _base_within_windows(given))
    gemma.add_blocks(draft, given, sizes, gemma2.NORMS)
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}.self_attn"
        draft.tensor(f"{at}.q_norm.weight", sizes.head_width, change=one_added())
        draft.tensor(f"{at}.k_norm.weight", sizes.head_width, change=one_added())
    return draft, sizes.vocabulary


def _base_within_windows(given: Hyperparameters) -> float:
    """The base of angles in layers that look back at a window."""
    if given.section("rope_parameters").has("sliding_attention"):
        return rope.read(given, "sliding_attention").base
    return given.number("rope_local_base_freq", 1e4)
