"""MixtralForCausalLM: a Mistral with experts, of which a router chooses some for each token."""

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
    draft = Draft(MODEL_ARCH.LLAMA, sizes.layers)
    decoder.set_sizes(draft, given, sizes, window=decoder.window(given))
    decoder.set_whole_rope(draft, given, sizes)
    experts = given.integer("num_local_experts", 8, most=decoder.MAX_EXPERTS)
    draft.set_integer(Keys.LLM.EXPERT_COUNT, experts)
    draft.set_integer(Keys.LLM.EXPERT_USED_COUNT, given.integer("num_experts_per_tok", 2, most=experts))
    decoder.add_ends(draft, given, sizes)
    for layer in range(sizes.layers):
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        decoder.add_attention(draft, sizes, layer, pairs_apart=True)
        at = f"model.layers.{layer}.block_sparse_moe"
        draft.tensor(f"{at}.gate.weight", experts, sizes.width)
        for part, rows, columns in (
            ("w1", sizes.feed_forward, sizes.width),
            ("w2", sizes.width, sizes.feed_forward),
            ("w3", sizes.feed_forward, sizes.width),
        ):
            sources = [f"{at}.experts.{expert}.{part}.weight" for expert in range(experts)]
            draft.stack(f"{at}.experts.{part}.weight", sources, rows, columns)
    return decoder.finished(draft, sizes)
