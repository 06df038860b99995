"""Four rules for every file, whatever its family: what a file may have that ends the engine or has it refuse the file.

The vocabulary is cut to the rows of the embeddings; a kind of rope scaling that is none goes; small tensors of a
projector become F32; its keys get exactly the types that the engine reads.
"""

from corral.gguf import GGUF, Array, Tensor, ValueType
from corral.gguf.projector import KEY_TYPES
from corral.gguf.writer import cut_array, encode
from corral.published.draft import Draft
from corral.published.values import find

VERSION = 1
"""To be raised when these rules come to make something else of a file."""

MOST_CUT = 1024
"""Tokens that there may be beyond the rows: converters leave a few, and more are a fault of another kind."""

_TOKENS = "tokenizer.ggml.tokens"
_PER_TOKEN = (_TOKENS, "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
_NO_SCALING = ("", "default", "mrope")
"""What converters have written for the kind of rope scaling where there is none."""

_SMALL = (".bias", "position_embd.weight", "class_embd", "class_embd.weight")
"""How names of a projector's tensors end that are added, besides all that have one dimension."""


def may_apply(file: GGUF) -> bool:
    """Whether a rule would change the file; tells without reading anything more of it."""
    if file.kind == "projector":
        return any(map(_must_be_widened, file.tensors)) or any(_is_miswritten(file, key) for key in _clip_keys(file))
    return (
        file.text("rope.scaling.type") in _NO_SCALING
        or file.get("rope.scaling.factor") == 0
        or 0 < _surplus(file, find(file, "token_embd.weight")) <= MOST_CUT
    )


def apply_to_text(draft: Draft) -> None:
    """The rules for a model's own part, when a family's have been applied."""
    file, architecture = draft.file, draft.architecture
    embeddings = next((recipe.tensor for recipe in draft.recipes if recipe.name == "token_embd.weight"), None)
    if embeddings is not None and 0 < _surplus(file, embeddings) <= MOST_CUT:
        cut_vocabulary(draft, embeddings.shape[1])
    if file.text("rope.scaling.type") in _NO_SCALING:
        draft.drop(f"{architecture}.rope.scaling.type")
    if file.get("rope.scaling.factor") == 0:
        draft.drop(f"{architecture}.rope.scaling.factor")


def apply_to_projector(draft: Draft) -> None:
    """The rules for a projector: one that a family has drafted, or a file that is one already."""
    draft.widen(lambda recipe: _must_be_widened(recipe.tensor))
    for key in _clip_keys(draft.file):
        if key in draft.fields and _is_miswritten(draft.file, key):
            value = draft.file.metadata[key]
            assert isinstance(value, int | float)
            draft.fields[key] = encode(KEY_TYPES[key.removeprefix("clip.")], value)


def cut_vocabulary(draft: Draft, rows: int) -> None:
    """Leaves the first `rows` tokens, with their scores and types."""
    for key in _PER_TOKEN:
        value = draft.file.metadata.get(key)
        if isinstance(value, Array) and value.length > rows and key in draft.fields:
            draft.fields[key] = cut_array(draft.fields[key], rows)


def _surplus(file: GGUF, embeddings: Tensor | None) -> int:
    """How many more tokens there are than rows, where all else fits; negative: fewer."""
    tokens = file.metadata.get(_TOKENS)
    if not isinstance(tokens, Array) or embeddings is None or len(embeddings.shape) != 2:
        return 0
    output = find(file, "output.weight")
    if embeddings.shape[0] != file.embedding_length or (output is not None and output.shape != embeddings.shape):
        return 0  # another fault, which is to be named
    return tokens.length - embeddings.shape[1]


def _must_be_widened(tensor: Tensor) -> bool:
    return tensor.type in ("F16", "BF16") and (len(tensor.shape) < 2 or tensor.name.endswith(_SMALL))


def _clip_keys(file: GGUF) -> list[str]:
    return [key for key in file.metadata if key.startswith("clip.") and key.removeprefix("clip.") in KEY_TYPES]


def _is_miswritten(file: GGUF, key: str) -> bool:
    """Whether a key has a number that only the type is wrong of."""
    wanted, value = KEY_TYPES[key.removeprefix("clip.")], file.metadata[key]
    if file.types[key] is wanted or isinstance(value, bool):
        return False
    if wanted in (ValueType.UINT32, ValueType.INT32):
        return isinstance(value, int) and 0 <= value < 1 << 31
    return wanted is ValueType.FLOAT32 and isinstance(value, float)
