"""Unigram vocabularies of `tokenizer.json` (XLM-RoBERTa, T5): of all spellings of a text the most probable is taken."""

import base64
import binascii
import logging
import math
import struct
from collections.abc import Collection

from corral.convert.tokenizers import metaspace
from corral.convert.tokenizers.files import Folder, as_list, as_text
from corral.convert.tokenizers.vocabulary import MAX_TOKENS, Token, TokenKind, Vocabulary, has_every_byte, is_byte
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode, encode_array
from corral.messages import Json

log = logging.getLogger(__name__)


def read(folder: Folder) -> Vocabulary:
    folder.warn_of_normalizers("Precompiled", "Replace", "Prepend", "Nmt", "NFKC", "Strip")
    listed = as_list(folder.model.get("vocab"), "tokenizer.json: model.vocab")
    if len(listed) > MAX_TOKENS:
        raise ModelFileError(f"tokenizer.json: model.vocab has more than {MAX_TOKENS} tokens")
    unknown = folder.model.get("unk_id")
    pieces = [_piece(piece, number) for number, piece in enumerate(listed)]
    tokens = {n: Token(text, _kind(text, n, unknown), score) for n, (text, score) in enumerate(pieces)}
    unknown_text = pieces[unknown][0] if isinstance(unknown, int) and 0 <= unknown < len(pieces) else None
    tokens |= metaspace.added_tokens(folder, unknown_text)
    charsmaps = [step for step in folder.steps("normalizer") if step.get("type") == "Precompiled"]
    encoded = charsmaps[0].get("precompiled_charsmap") if charsmaps else None
    try:
        raw = base64.b64decode(as_text(encoded or "", "tokenizer.json: precompiled_charsmap"), validate=True)
    except binascii.Error as error:
        raise ModelFileError("tokenizer.json: precompiled_charsmap is not base64") from error
    more = {
        "tokenizer.ggml.add_space_prefix": encode(ValueType.BOOL, metaspace.adds_space(folder)),
        "tokenizer.ggml.remove_extra_whitespaces": encode(ValueType.BOOL, _removes_spaces(folder)),
        **charsmap(raw, "tokenizer.json"),
    }
    spellings = {added.text: added.number for added in folder.added_tokens}
    model = engine_model([text for text, _ in pieces])
    return Vocabulary(model=model, tokens=tokens, has_scores=True, more=more, spellings=spellings)


def engine_model(texts: Collection[str]) -> str:
    """The engine's way to tokenise by a unigram vocabulary.

    Its own way knows no bytes: what has no piece would be lost, line breaks among it. Where the vocabulary has bytes,
    pieces are merged by their scores instead: nothing is lost, though some words are cut up in another way.
    """
    if not has_every_byte(texts):
        return "t5"
    log.warning("the engine has no unigram tokenizer with bytes: some words become other tokens than in training")
    return "llama"


def charsmap(raw: bytes, where: str) -> dict[str, bytes]:
    """The key with SentencePiece's table of replaced characters; none when the table is empty."""
    if not raw:
        return {}
    size = struct.unpack_from("<I", raw)[0] if len(raw) > 4 else 0
    if not size or size % 4 or size + 4 >= len(raw) or raw[-1] != 0:
        raise ModelFileError(f"{where}: the table of replaced characters is broken")
    return {"tokenizer.ggml.precompiled_charsmap": encode_array(ValueType.UINT8, list(raw))}


def _piece(piece: Json, number: int) -> tuple[str, float]:
    where = f"tokenizer.json: token {number}"
    text, score = piece if isinstance(piece, list) and len(piece) == 2 else (None, None)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ModelFileError(f"{where} is not a text with its score")
    return as_text(text, where), float(score)


def _kind(text: str, number: int, unknown: Json) -> TokenKind:
    if number == unknown:
        return TokenKind.UNKNOWN
    return TokenKind.BYTE if is_byte(text) else TokenKind.NORMAL


def _removes_spaces(folder: Folder) -> bool:
    """Whether several spaces become one: they are cut away, or split off as what stands between words."""
    replaces = [step for step in folder.steps("normalizer") if step.get("type") == "Replace"]
    return any(step.get("pattern") == {"Regex": " {2,}"} for step in replaces) or any(
        step.get("type") == "WhitespaceSplit" for step in folder.steps("pre_tokenizer")
    )
