"""BertModel: BERT, MiniLM, BGE and other encoders that make embeddings."""

from gguf import MODEL_ARCH

from corral.convert.architectures import encoder
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Draft, Plan

_IGNORED = (r"pooler\..*", r"cls\..*", r"embeddings\.position_ids")
"""Heads for other uses, and numbers that only count."""


def plan(checkpoint: Checkpoint) -> Plan:
    """Keys and tensors of the new file; `ModelFileError` for a configuration the engine cannot compute."""
    given = checkpoint.hyperparameters
    given.one_of("hidden_act", ["gelu", "gelu_new", "gelu_pytorch_tanh"], "gelu")
    given.one_of("position_embedding_type", ["absolute"], "absolute")
    given.one_of("is_decoder", [False], False)
    sizes = encoder.sizes(given)
    draft = Draft(MODEL_ARCH.BERT, sizes.layers)
    encoder.set_sizes(draft, given, sizes)
    draft.tensor("embeddings.word_embeddings.weight", sizes.vocabulary, sizes.width)
    draft.tensor("embeddings.position_embeddings.weight", sizes.context_length, sizes.width)
    draft.tensor("embeddings.token_type_embeddings.weight", sizes.token_types, sizes.width)
    encoder.add_norm(draft, "embeddings.LayerNorm", sizes.width)
    for layer in range(sizes.layers):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            encoder.add_linear(draft, f"{at}.attention.self.{part}", sizes.width, sizes.width)
        encoder.add_linear(draft, f"{at}.attention.output.dense", sizes.width, sizes.width)
        encoder.add_norm(draft, f"{at}.attention.output.LayerNorm", sizes.width)
        encoder.add_linear(draft, f"{at}.intermediate.dense", sizes.feed_forward, sizes.width)
        encoder.add_linear(draft, f"{at}.output.dense", sizes.width, sizes.feed_forward)
        encoder.add_norm(draft, f"{at}.output.LayerNorm", sizes.width)
    return draft.plan(sizes.vocabulary, renamed=(("bert.", ""),), ignored=_IGNORED)
