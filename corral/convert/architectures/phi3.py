"""Phi3ForCausalLM: Phi 3, 3.5 and 4 mini, whose projections are joined in one tensor."""

from gguf import MODEL_ARCH

from corral.convert import rope
from corral.convert.architectures import decoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan
from corral.errors import ModelFileError


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters
    given.one_of("hidden_act", ["silu"], "silu")
    given.one_of("attention_bias", [False], False)
    sizes = decoder.sizes(given)
    if sizes.queries != sizes.width:
        raise ModelFileError(f"{sizes.heads} heads of {sizes.head_width} are not the {sizes.width} elements of a Phi 3")
    draft = Draft(MODEL_ARCH.PHI3, sizes.layers)
    decoder.set_sizes(draft, given, sizes, window=decoder.window(given))
    turned = rope.read(given)
    width = int(sizes.head_width * rope.partial_factor(given, turned))
    if width < 2 or width % 2:
        raise ModelFileError(f'config.json: "partial_rotary_factor" turns {width} elements, which are not pairs')
    rope.write(draft, given, turned, width, sizes.context_length)
    decoder.add_ends(draft, given, sizes)
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}"
        decoder.add_norms(draft, sizes, layer, ("input_layernorm", "post_attention_layernorm"))
        draft.tensor(f"{at}.self_attn.qkv_proj.weight", sizes.queries + 2 * sizes.keys, sizes.width)
        draft.tensor(f"{at}.self_attn.o_proj.weight", sizes.width, sizes.queries)
        draft.tensor(f"{at}.mlp.gate_up_proj.weight", 2 * sizes.feed_forward, sizes.width)
        draft.tensor(f"{at}.mlp.down_proj.weight", sizes.width, sizes.feed_forward)
    return decoder.finished(draft, sizes)
