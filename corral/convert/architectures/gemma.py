"""GemmaForCausalLM, and what the later Gemmas share with it: norms around 1, an output tied to the embedding."""

from gguf import MODEL_ARCH

from corral.convert.architectures import decoder
from corral.convert.architectures.decoder import Sizes
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.recipe import one_added


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters
    sizes = decoder.sizes(given)
    draft = Draft(MODEL_ARCH.GEMMA, sizes.layers)
    decoder.set_sizes(draft, given, sizes)
    decoder.set_whole_rope(draft, given, sizes)
    add_blocks(draft, given, sizes, ("input_layernorm", "post_attention_layernorm"))
    return decoder.finished(draft, sizes)


def add_blocks(draft: Draft, given: Hyperparameters, sizes: Sizes, norms: tuple[str, ...]) -> None:
    """Embedding, last norm and all layers."""
    activation = "hidden_activation" if given.has("hidden_activation") else "hidden_act"
    given.one_of(activation, ["gelu_pytorch_tanh", "gelu"], "gelu_pytorch_tanh")  # the first Gemmas said gelu for it
    given.one_of("attention_bias", [False], False)
    given.one_of("tie_word_embeddings", [True], True)
    decoder.add_ends(draft, given, sizes, tied=True, norm=one_added())
    for layer in range(sizes.layers):
        decoder.add_norms(draft, sizes, layer, norms, one_added())
        decoder.add_attention(draft, sizes, layer)
        decoder.add_feed_forward(draft, sizes, layer)
