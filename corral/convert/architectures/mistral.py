"""MistralForCausalLM: a Llama whose tokens may look back at a window only."""

from gguf import MODEL_ARCH

from corral.convert.architectures import decoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan

_WINDOW = {"sliding_window": 4096}
"""What holds for configurations from before the window could be left out."""


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters.laid_over(_WINDOW)
    given.one_of("hidden_act", ["silu"], "silu")
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.LLAMA, sizes.layers)
    decoder.set_sizes(draft, given, sizes, window=decoder.window(given))
    decoder.set_whole_rope(draft, given, sizes)
    decoder.add_ends(draft, given, sizes)
    for layer in range(sizes.layers):
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        decoder.add_attention(draft, sizes, layer, pairs_apart=True)
        decoder.add_feed_forward(draft, sizes, layer)
    return decoder.finished(draft, sizes)
