"""Qwen2ForCausalLM: Qwen 2 and 2.5."""

from gguf import MODEL_ARCH

from corral.convert.architectures import decoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters
    given.one_of("hidden_act", ["silu"], "silu")
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.QWEN2, sizes.layers)
    decoder.set_sizes(draft, given, sizes, window=decoder.optional_window(given, sizes))
    decoder.set_whole_rope(draft, given, sizes)
    decoder.add_ends(draft, given, sizes)
    for layer in range(sizes.layers):
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        decoder.add_attention(draft, sizes, layer, biased="qkv")
        decoder.add_feed_forward(draft, sizes, layer)
    return decoder.finished(draft, sizes)
