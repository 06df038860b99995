"""GraniteForCausalLM: a Llama with four multipliers."""

from gguf import MODEL_ARCH
from gguf.constants import Keys

from corral.convert.architectures import decoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters
    given.one_of("hidden_act", ["silu"], "silu")
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.GRANITE, sizes.layers)
    decoder.set_sizes(draft, given, sizes)
    decoder.set_whole_rope(draft, given, sizes)
    draft.set_number(Keys.LLM.LOGIT_SCALE, given.number("logits_scaling", 1.0))
    draft.set_number(Keys.LLM.RESIDUAL_SCALE, given.number("residual_multiplier", 1.0))
    draft.set_number(Keys.LLM.EMBEDDING_SCALE, given.number("embedding_multiplier", 1.0))
    draft.set_number(Keys.Attention.SCALE, given.number("attention_multiplier", 1.0))
    decoder.add_ends(draft, given, sizes)
    biased = "qkvo" if given.flag("attention_bias", False) else ""
    for layer in range(sizes.layers):
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        decoder.add_attention(draft, sizes, layer, biased=biased, pairs_apart=True)
        decoder.add_feed_forward(draft, sizes, layer, biased=given.flag("mlp_bias", False))
    return decoder.finished(draft, sizes)
