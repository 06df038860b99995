"""WordPiece of BERT and its kin: `tokenizer.json`, or the older `vocab.txt` with a token a line.

The engine spells a word's beginning with ▁ and what continues it bare, where checkpoints mark what continues it.
"""

import logging
from collections.abc import Collection, Mapping

from corral.convert.tokenizers import json_vocabulary
from corral.convert.tokenizers.files import Folder
from corral.convert.tokenizers.vocabulary import MAX_TOKENS, Token, TokenKind, Vocabulary
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode
from corral.messages import Json

log = logging.getLogger(__name__)


def read(folder: Folder) -> Vocabulary:
    prefix = folder.model.get("continuing_subword_prefix", "##")
    if not isinstance(prefix, str) or not prefix:
        raise ModelFileError("tokenizer.json: model.continuing_subword_prefix is not text")
    normalizer = next((step for step in folder.steps("normalizer") if step.get("type") == "BertNormalizer"), {})
    if normalizer.get("handle_chinese_chars") is False:
        log.warning("the tokenizer keeps Chinese characters in words, the engine takes each for a word")
    return _vocabulary(folder, json_vocabulary.numbers(folder), prefix, normalizer)


def read_lines(folder: Folder) -> Vocabulary:
    lines = folder.text("vocab.txt").replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) > MAX_TOKENS:
        raise ModelFileError(f'"vocab.txt" has more than {MAX_TOKENS} tokens')
    numbers: dict[str, int] = {}
    for number, text in enumerate(lines):
        if numbers.setdefault(text, number) != number:
            raise ModelFileError(f'"vocab.txt" has "{text[:80]}" in the lines {numbers[text] + 1} and {number + 1}')
    settings = {
        "lowercase": folder.settings.get("do_lower_case", True),
        "strip_accents": folder.settings.get("strip_accents"),
    }
    return _vocabulary(folder, numbers, "##", settings)


def _vocabulary(folder: Folder, numbers: Mapping[str, int], prefix: str, normalizer: Mapping[str, Json]) -> Vocabulary:
    special = {added.text for added in folder.added_tokens if added.special}
    unknown = folder.model.get("unk_token", "[UNK]")
    tokens = {number: _token(text, prefix, special, unknown) for text, number in numbers.items()}
    for added in folder.added_tokens:
        kind = TokenKind.CONTROL if added.special else TokenKind.USER_DEFINED
        tokens[added.number] = Token(added.text, TokenKind.UNKNOWN if added.text == unknown else kind)
    lowercase = normalizer.get("lowercase") is True
    strips = normalizer.get("strip_accents")
    types = folder.config.get("type_vocab_size")
    count = types if isinstance(types, int) and not isinstance(types, bool) and 0 < types < 1 << 16 else 2
    return Vocabulary(
        model="bert",
        tokens=tokens,
        spellings={**numbers, **{added.text: added.number for added in folder.added_tokens}},
        more={
            "tokenizer.ggml.token_type_count": encode(ValueType.UINT32, count),
            "tokenizer.ggml.normalizer.lowercase": encode(ValueType.BOOL, lowercase),
            "tokenizer.ggml.normalizer.strip_accents": encode(
                ValueType.BOOL, lowercase if strips is None else strips is True
            ),
        },
    )


_MARKS = frozenset({"[PAD]", "[CLS]", "[SEP]", "[MASK]"})


def _token(text: str, prefix: str, special: Collection[str], unknown: Json) -> Token:
    if text == unknown:
        return Token(text, TokenKind.UNKNOWN)
    if text in special or text in _MARKS:
        return Token(text, TokenKind.CONTROL)
    if text.startswith("[unused") and text.endswith("]"):
        return Token(text, TokenKind.UNUSED)
    return Token(text.removeprefix(prefix) if len(text) > len(prefix) and text.startswith(prefix) else f"▁{text}")
