"""What the decoders of Llama's kind share: sizes with their keys, and the tensors of attention and feed-forward."""

import logging

from gguf.constants import Keys
from msgspec import Struct

from corral.convert import rope
from corral.convert.draft import Draft, Plan
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.recipe import Change, interleaved
from corral.errors import ModelFileError
from corral.gguf.file import MAX_LAYERS

log = logging.getLogger(__name__)

MAX_WIDTH = 1 << 20
MAX_WIDE = 1 << 24
MAX_HEADS = 1 << 16
MAX_VOCABULARY = 1 << 20
MAX_EXPERTS = 1 << 12

RENAMED = (("layers.", "model.layers."), ("embed_tokens.", "model.embed_tokens."), ("norm.", "model.norm."))
"""Names of checkpoints that were saved without the head of a language model, as embedding models are."""

IGNORED = (
    r"lm_head\.weight",
    r".*\.rotary_emb\.inv_freq",
    r".*\.self_attn\.(masked_)?bias",
    r".*\.(input|output|k|v)_scale",
)
"""Tensors that a model may do without: an output that is tied to the embedding, what older checkpoints hold of what the
configuration says, and scales of activations and caches.
"""


class Sizes(Struct, frozen=True):
    """How large a decoder is; widths in elements, `context_length` in tokens."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    context_length: int
    vocabulary: int

    @property
    def queries(self) -> int:
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_width


def sizes(hyperparameters: Hyperparameters) -> Sizes:
    """The sizes in the configuration; heads are as wide as the embedding divided among them where it does not say."""
    width = hyperparameters.integer("hidden_size", most=MAX_WIDTH)
    heads = hyperparameters.integer("num_attention_heads", most=min(MAX_HEADS, width))
    kv_heads = hyperparameters.integer("num_key_value_heads", heads, most=heads)
    if heads % kv_heads:
        raise ModelFileError(f'config.json: "num_key_value_heads" is {kv_heads}, which does not divide {heads} heads')
    if not hyperparameters.has("head_dim") and width % heads:
        raise ModelFileError(f'config.json: "num_attention_heads" is {heads}, which does not divide {width} elements')
    head_width = hyperparameters.integer("head_dim", width // heads, least=2, most=MAX_HEADS)
    if head_width % 2:
        raise ModelFileError(f"heads of {head_width} elements cannot be turned in pairs")
    return Sizes(
        hyperparameters.integer("num_hidden_layers", most=MAX_LAYERS),
        width,
        heads,
        kv_heads,
        head_width,
        hyperparameters.integer("intermediate_size", most=MAX_WIDE),
        hyperparameters.integer("max_position_embeddings", most=rope.MAX_LENGTH),
        hyperparameters.integer("vocab_size", most=MAX_VOCABULARY),
    )


def set_sizes(draft: Draft, hyperparameters: Hyperparameters, sizes: Sizes, window: int | None = None) -> None:
    """The keys that every decoder has.

    `window`: tokens that a token looks back at in layers where the engine lets it look at all. Within that length both
    compute the same. The context keeps its published length, as other converters leave it.
    """
    draft.set_integer(Keys.LLM.VOCAB_SIZE, sizes.vocabulary)
    if window is not None and window < sizes.context_length:
        log.warning(
            "the model looks back at %d tokens, the engine at all of %d: it reads longer texts otherwise than in training",
            window,
            sizes.context_length,
        )
    draft.set_integer(Keys.LLM.CONTEXT_LENGTH, sizes.context_length)
    draft.set_integer(Keys.LLM.EMBEDDING_LENGTH, sizes.width)
    draft.set_integer(Keys.LLM.FEED_FORWARD_LENGTH, sizes.feed_forward)
    draft.set_integer(Keys.Attention.HEAD_COUNT, sizes.heads)
    draft.set_integer(Keys.Attention.HEAD_COUNT_KV, sizes.kv_heads)
    draft.set_integer(Keys.Attention.KEY_LENGTH, sizes.head_width)
    draft.set_integer(Keys.Attention.VALUE_LENGTH, sizes.head_width)
    draft.set_number(Keys.Attention.LAYERNORM_RMS_EPS, hyperparameters.number("rms_norm_eps", 1e-6, most=1.0))


def window(hyperparameters: Hyperparameters) -> int | None:
    """Tokens that a token looks back at, in models where all layers do so alike; None where it looks at all."""
    types = hyperparameters.texts("layer_types")
    if not hyperparameters.has("sliding_window") or (types is not None and "sliding_attention" not in types):
        return None
    return hyperparameters.integer("sliding_window", most=rope.MAX_LENGTH)


def optional_window(hyperparameters: Hyperparameters, sizes: Sizes) -> int | None:
    """The same for Qwen, which names a window that may be off, or begin above the last layer."""
    if not hyperparameters.flag("use_sliding_window", False):
        return None
    first = hyperparameters.integer("max_window_layers", 0, least=0, most=MAX_LAYERS)
    return window(hyperparameters) if first < sizes.layers else None


def set_whole_rope(draft: Draft, hyperparameters: Hyperparameters, sizes: Sizes) -> None:
    """Rotary embeddings of an architecture that the engine turns whole heads of only."""
    found = rope.read(hyperparameters)
    if rope.partial_factor(hyperparameters, found) != 1:
        raise ModelFileError('config.json: "partial_rotary_factor" below 1 is not supported by the engine')
    rope.write(draft, hyperparameters, found, sizes.head_width, sizes.context_length)


def add_ends(
    draft: Draft, hyperparameters: Hyperparameters, sizes: Sizes, *, tied: bool = False, norm: Change | None = None
) -> None:
    """Embedding, last norm and output. `tied` is what holds where the configuration does not say."""
    draft.tensor("model.embed_tokens.weight", sizes.vocabulary, sizes.width)
    draft.tensor("model.norm.weight", sizes.width, change=norm)
    if not hyperparameters.flag("tie_word_embeddings", tied):
        says = hyperparameters.has("tie_word_embeddings")
        draft.tensor("lm_head.weight", sizes.vocabulary, sizes.width, required=says)


def add_norms(draft: Draft, sizes: Sizes, layer: int, names: tuple[str, ...], change: Change | None = None) -> None:
    """A layer's norms, named without the layer."""
    for name in names:
        draft.tensor(f"model.layers.{layer}.{name}.weight", sizes.width, change=change)


def add_attention(
    draft: Draft,
    sizes: Sizes,
    layer: int,
    *,
    biased: str = "",
    pairs_apart: bool = False,
) -> None:
    """Projections of queries, keys, values and output, with biases for those whose letter is in `biased`.

    `pairs_apart`: the engine wants the elements of queries and keys that turn together side by side.
    """
    at = f"model.layers.{layer}.self_attn"
    turned = interleaved(sizes.head_width) if pairs_apart else None
    for letter, rows, columns, change in (
        ("q", sizes.queries, sizes.width, turned),
        ("k", sizes.keys, sizes.width, turned),
        ("v", sizes.keys, sizes.width, None),
        ("o", sizes.width, sizes.queries, None),
    ):
        draft.tensor(f"{at}.{letter}_proj.weight", rows, columns, change=change)
        if letter in biased:
            draft.tensor(f"{at}.{letter}_proj.bias", rows, change=change)


def add_feed_forward(draft: Draft, sizes: Sizes, layer: int, *, biased: bool = False) -> None:
    """A gated feed-forward network."""
    at = f"model.layers.{layer}.mlp"
    for name, rows, columns in (
        ("gate_proj", sizes.feed_forward, sizes.width),
        ("up_proj", sizes.feed_forward, sizes.width),
        ("down_proj", sizes.width, sizes.feed_forward),
    ):
        draft.tensor(f"{at}.{name}.weight", rows, columns)
        if biased:
            draft.tensor(f"{at}.{name}.bias", rows)


def finished(draft: Draft, sizes: Sizes) -> Plan:
    """The plan of a decoder."""
    return draft.plan(sizes.vocabulary, renamed=RENAMED, ignored=IGNORED)
