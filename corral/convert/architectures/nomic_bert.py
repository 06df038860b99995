"""NomicBertModel: an encoder with rotary positions and gated networks, configured in its own words or in BERT's."""

from gguf import MODEL_ARCH
from gguf.constants import Keys

from corral.convert import rope
from corral.convert.architectures import encoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan
from corral.convert.hyperparameters import Hyperparameters

_NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
    "rotary_emb_fraction": "partial_rotary_factor",
}
"""The names of the configuration that was published with the model, and BERT's."""

_MUST_BE_OFF = (
    "prenorm",
    "parallel_block",
    "use_rms_norm",
    "causal",
    "qkv_proj_bias",
    "mlp_fc1_bias",
    "mlp_fc2_bias",
    "rotary_emb_interleaved",
)

_IGNORED = (r"pooler\..*", r"cls\..*", r".*\.inv_freq")


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = _given(checkpoint)
    sizes = encoder.sizes(given)
    draft = Draft(MODEL_ARCH.NOMIC_BERT, sizes.layers)
    encoder.set_sizes(draft, given, sizes)
    draft.set_integer(Keys.LLM.CONTEXT_LENGTH, _trained_length(given, sizes.context_length))
    rope.write(draft, given, rope.read(given, base=1000.0), sizes.width // sizes.heads, sizes.context_length)
    draft.tensor("embeddings.word_embeddings.weight", sizes.vocabulary, sizes.width)
    draft.tensor("embeddings.token_type_embeddings.weight", sizes.token_types, sizes.width)
    encoder.add_norm(draft, "emb_ln", sizes.width)
    for layer in range(sizes.layers):
        at = f"encoder.layers.{layer}"
        draft.tensor(f"{at}.attn.Wqkv.weight", 3 * sizes.width, sizes.width)
        draft.tensor(f"{at}.attn.out_proj.weight", sizes.width, sizes.width)
        encoder.add_norm(draft, f"{at}.norm1", sizes.width)
        draft.tensor(f"{at}.mlp.fc11.weight", sizes.feed_forward, sizes.width)
        draft.tensor(f"{at}.mlp.fc12.weight", sizes.feed_forward, sizes.width)
        draft.tensor(f"{at}.mlp.fc2.weight", sizes.width, sizes.feed_forward)
        encoder.add_norm(draft, f"{at}.norm2", sizes.width)
    return draft.plan(sizes.vocabulary, renamed=(("bert.", ""),), ignored=_IGNORED)


def _given(checkpoint: Checkpoint) -> Hyperparameters:
    """The configuration in BERT's words, checked for what the engine does not compute."""
    config = checkpoint.config
    given = Hyperparameters({**{new: config.get(old) for old, new in _NAMES.items()}, **config})
    given.one_of("activation_function", ["swiglu"], "swiglu")
    given.one_of("hidden_act", ["silu"], "silu")
    for key in _MUST_BE_OFF:
        given.one_of(key, [False], False)
    given.one_of("partial_rotary_factor", [1, 1.0], 1.0)
    given.one_of("num_experts", [0], 0)
    return given


def _trained_length(given: Hyperparameters, length: int) -> int:
    """Tokens up to which positions turn as in training; beyond, the model's own code stretches them."""
    return min(length, given.integer("max_trained_positions", length, most=rope.MAX_LENGTH))
