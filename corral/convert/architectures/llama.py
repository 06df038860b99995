"""LlamaForCausalLM: Llama 1 to 3 and the many models that are built alike."""

from gguf import MODEL_ARCH

from corral.convert.architectures import decoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters.laid_over({"max_position_embeddings": 2048})  # what the first Llama had
    given.one_of("hidden_act", ["silu"], "silu")
    given.one_of("rope_interleaved", [False], False)
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.LLAMA, sizes.layers)
    decoder.set_sizes(draft, given, sizes)
    decoder.set_whole_rope(draft, given, sizes)
    decoder.add_ends(draft, given, sizes)
    biased = "qkvo" if given.flag("attention_bias", False) else ""
    for layer in range(sizes.layers):
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        decoder.add_attention(draft, sizes, layer, biased=biased, pairs_apart=True)
        decoder.add_feed_forward(draft, sizes, layer, biased=given.flag("mlp_bias", False))
    return decoder.finished(draft, sizes)
