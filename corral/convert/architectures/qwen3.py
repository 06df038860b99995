"""Qwen3ForCausalLM, and Qwen3MoeForCausalLM with its experts."""

from gguf import MODEL_ARCH
from gguf.constants import Keys

from corral.convert.architectures import decoder
from corral.convert.architectures.decoder import Sizes
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan
from corral.convert.hyperparameters import Hyperparameters


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of a dense model; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters
    sizes = decoder.sizes(given)
    draft = _draft(MODEL_ARCH.QWEN3, given, sizes)
    for layer in range(sizes.layers):
        decoder.add_feed_forward(draft, sizes, layer)
    return decoder.finished(draft, sizes)


def plan_of_experts(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of a model in which each layer has experts; else as `plan`."""
    given = checkpoint.hyperparameters
    given.one_of("norm_topk_prob", [True], False)
    given.one_of("decoder_sparse_step", [1], 1)
    given.one_of("mlp_only_layers", [[]], [])
    sizes = decoder.sizes(given)
    draft = _draft(MODEL_ARCH.QWEN3MOE, given, sizes)
    experts = given.integer("num_experts", most=decoder.MAX_EXPERTS)
    forward = given.integer("moe_intermediate_size", most=decoder.MAX_WIDE)
    draft.set_integer(Keys.LLM.EXPERT_COUNT, experts)
    draft.set_integer(Keys.LLM.EXPERT_USED_COUNT, given.integer("num_experts_per_tok", most=experts))
    draft.set_integer(Keys.LLM.EXPERT_FEED_FORWARD_LENGTH, forward)
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}.mlp"
        draft.tensor(f"{at}.gate.weight", experts, sizes.width)
        for part, rows, columns in (
            ("gate_proj", forward, sizes.width),
            ("up_proj", forward, sizes.width),
            ("down_proj", sizes.width, forward),
        ):
            sources = [f"{at}.experts.{expert}.{part}.weight" for expert in range(experts)]
            draft.stack(f"{at}.experts.{part}.weight", sources, rows, columns)
    return decoder.finished(draft, sizes)


def _draft(architecture: MODEL_ARCH, given: Hyperparameters, sizes: Sizes) -> Draft:
    """All but the feed-forward networks."""
    given.one_of("hidden_act", ["silu"], "silu")
    given.one_of("attention_bias", [False], False)
    draft = Draft(architecture, sizes.layers)
    decoder.set_sizes(draft, given, sizes, window=decoder.optional_window(given, sizes))
    decoder.set_whole_rope(draft, given, sizes)
    decoder.add_ends(draft, given, sizes)
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}.self_attn"
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        decoder.add_attention(draft, sizes, layer)
        draft.tensor(f"{at}.q_norm.weight", sizes.head_width)
        draft.tensor(f"{at}.k_norm.weight", sizes.head_width)
    return draft
