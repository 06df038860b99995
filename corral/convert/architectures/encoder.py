"""What BERT and its kin share: keys, and how many vectors become one."""

from gguf import PoolingType
from gguf.constants import Keys
from msgspec import Struct

from corral.convert.architectures.decoder import MAX_HEADS, MAX_VOCABULARY, MAX_WIDE, MAX_WIDTH
from corral.convert.draft import Draft
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.rope import MAX_LENGTH
from corral.errors import ModelFileError
from corral.gguf.file import MAX_LAYERS


class Sizes(Struct, frozen=True):
    """How large an encoder is; widths in elements, `context_length` in tokens."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    context_length: int
    vocabulary: int
    token_types: int


def sizes(given: Hyperparameters) -> Sizes:
    """The sizes in the configuration, by the names that BERT gave them."""
    width = given.integer("hidden_size", most=MAX_WIDTH)
    heads = given.integer("num_attention_heads", most=min(MAX_HEADS, width))
    if width % heads:
        raise ModelFileError(f'config.json: "num_attention_heads" is {heads}, which does not divide {width} elements')
    return Sizes(
        given.integer("num_hidden_layers", most=MAX_LAYERS),
        width,
        heads,
        given.integer("intermediate_size", most=MAX_WIDE),
        given.integer("max_position_embeddings", most=MAX_LENGTH),
        given.integer("vocab_size", most=MAX_VOCABULARY),
        given.integer("type_vocab_size", 2, most=MAX_HEADS),
    )


def set_sizes(draft: Draft, given: Hyperparameters, sizes: Sizes) -> None:
    """The keys that every encoder has."""
    draft.set_integer(Keys.LLM.VOCAB_SIZE, sizes.vocabulary)
    draft.set_integer(Keys.LLM.CONTEXT_LENGTH, sizes.context_length)
    draft.set_integer(Keys.LLM.EMBEDDING_LENGTH, sizes.width)
    draft.set_integer(Keys.LLM.FEED_FORWARD_LENGTH, sizes.feed_forward)
    draft.set_integer(Keys.Attention.HEAD_COUNT, sizes.heads)
    draft.set_integer(Keys.Attention.HEAD_COUNT_KV, sizes.heads)
    draft.set_number(Keys.Attention.LAYERNORM_EPS, given.number("layer_norm_eps", 1e-12, most=1.0))
    draft.set_flag(Keys.Attention.CAUSAL, False)
    draft.set_integer(Keys.LLM.POOLING_TYPE, PoolingType.MEAN)  # unless the checkpoint says otherwise
    draft.set_integer(Keys.Tokenizer.TOKEN_TYPE_COUNT, sizes.token_types)


def add_linear(draft: Draft, name: str, rows: int, columns: int, *, biased: bool = True) -> None:
    """A matrix and its bias."""
    draft.tensor(f"{name}.weight", rows, columns)
    if biased:
        draft.tensor(f"{name}.bias", rows)


def add_norm(draft: Draft, name: str, width: int) -> None:
    """A norm with its bias."""
    draft.tensor(f"{name}.weight", width)
    draft.tensor(f"{name}.bias", width)
