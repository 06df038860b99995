"""Gemma 3n: more rows of embeddings than the tables of each layer have, and kinds of tokens that the engine lacks."""

from corral.errors import ModelFileError
from corral.gguf import GGUF, Array, ValueType
from corral.gguf.writer import encode_array
from corral.published import general, values
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family
from corral.published.recipe import first_rows, kept

_EMBEDDINGS, _BY_LAYER = "token_embd.weight", "per_layer_token_embd.weight"
_TYPES = "tokenizer.ggml.token_type"
_NORMAL, _BYTE = 1, 6


def _recognises(file: GGUF) -> bool:
    tables = [values.find(file, name) for name in (_EMBEDDINGS, _BY_LAYER)]
    rows = {table.shape[1] for table in tables if table is not None and len(table.shape) == 2}
    return len(rows) == 2 or values.has_any(file, "v.", "a.", "mm.")


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    rows = values.dimension(file, _BY_LAYER, 1)
    embeddings = values.tensor(file, _EMBEDDINGS)
    if embeddings.shape != (embeddings.shape[0], rows):
        draft.replace(_EMBEDDINGS, kept(first_rows(embeddings, rows)))
    draft.put("tokenizer.ggml.model", ValueType.STRING, "llama")
    general.cut_vocabulary(draft, rows)
    _put_token_types(draft, rows)
    draft.hide("v.", "a.", "mm.")
    return Drafts(draft)


def _put_token_types(draft: Draft, rows: int) -> None:
    """`<0x0A>` is a byte, `<unused…>` like any other."""
    types, file = draft.file.metadata.get(_TYPES), draft.file
    if not isinstance(types, Array) or types.type not in (ValueType.INT32, ValueType.UINT32):
        raise ModelFileError(f'key "{_TYPES}" is not an array of int32')
    tokens, numbers = file.values("tokenizer.ggml.tokens")[:rows], file.values(_TYPES)[:rows]
    found = [_type(str(token), number) for token, number in zip(tokens, numbers, strict=False)]
    draft.fields[_TYPES] = encode_array(types.type, found)


def _type(token: str, number: object) -> int:
    if token.startswith("<0x") and token.endswith(">") and len(token) == 6:
        return _BYTE
    if token.startswith("<unused"):
        return _NORMAL
    return number if isinstance(number, int) else _NORMAL


FAMILY = Family(name="gemma3n", version=1, architectures=("gemma3n",), recognises=_recognises, derive=_derive)
