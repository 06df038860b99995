"""BPE of `tokenizer.json` that writes spaces as ▁: SentencePiece's, as Llama 2, Mistral and Gemma have it.

The engine merges by the scores of what comes out; the pairs' order gives the scores.
"""

from collections.abc import Container, Mapping

from corral.convert.tokenizers import json_vocabulary
from corral.convert.tokenizers.files import Folder
from corral.convert.tokenizers.vocabulary import Token, TokenKind, Vocabulary, has_every_byte, is_byte
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode
from corral.messages import Json

SPACE = "▁"
_GEMMA_4 = "gemma4"
"""The engine merges for this family by the pairs themselves."""


def read(folder: Folder) -> Vocabulary:
    if not _writes_spaces(folder):
        raise ModelFileError("unknown tokenizer format")
    folder.warn_of_normalizers("Prepend", "Replace")
    numbers = json_vocabulary.numbers(folder)
    check_bytes(numbers, "tokenizer.json")
    merges = json_vocabulary.merges(folder, numbers)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    unknown = folder.model.get("unk_token")
    tokens = {
        number: Token(text, _kind(text, unknown), -float(ranks.get(text, len(merges))))
        for text, number in numbers.items()
    }
    tokens |= added_tokens(folder, unknown)
    family = folder.config.get("model_type")
    has_own_way = isinstance(family, str) and family.startswith(_GEMMA_4)
    return Vocabulary(
        model=_GEMMA_4 if has_own_way else "llama",
        pre=_GEMMA_4 if has_own_way else "default",
        tokens=tokens,
        merges=[f"{left} {right}" for left, right in merges] if has_own_way else None,
        has_scores=True,
        more={"tokenizer.ggml.add_space_prefix": encode(ValueType.BOOL, adds_space(folder))},
        spellings={added.text: added.number for added in folder.added_tokens},
    )


def added_tokens(folder: Folder, unknown: Json) -> dict[int, Token]:
    """Added tokens by their numbers: found in a text as it was typed, so with plain spaces."""
    found: dict[int, Token] = {}
    for added in folder.added_tokens:
        if added.text == unknown:
            found[added.number] = Token(added.text, TokenKind.UNKNOWN)
        elif is_byte(added.text):
            found[added.number] = Token(added.text, TokenKind.BYTE)
        elif added.special:
            found[added.number] = Token(added.text, TokenKind.CONTROL, -1000.0)
        else:
            found[added.number] = Token(added.text.replace(SPACE, " "), TokenKind.USER_DEFINED, -1000.0)
    return found


def check_bytes(texts: Container[str], where: str) -> None:
    """Without them the engine fails at every text that the vocabulary cannot spell."""
    if not has_every_byte(texts):
        raise ModelFileError(f"{where}: the vocabulary has no token for every byte, as the engine needs it")


def adds_space(folder: Folder) -> bool:
    """Whether a space is put in front of a text."""
    for step in folder.steps("normalizer"):
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE:
            return True
    metaspaces = [step for step in folder.steps("pre_tokenizer") if step.get("type") == "Metaspace"]
    return any(_prepends(step) for step in metaspaces)


def _prepends(step: Mapping[str, Json]) -> bool:
    scheme = step.get("prepend_scheme")
    return step.get("add_prefix_space") is not False if scheme is None else scheme != "never"


def _writes_spaces(folder: Folder) -> bool:
    replaces = [step for step in folder.steps("normalizer") if step.get("type") == "Replace"]
    metaspaces = [step for step in folder.steps("pre_tokenizer") if step.get("type") == "Metaspace"]
    return bool(metaspaces) or any(step.get("content") == SPACE for step in replaces)


def _kind(text: str, unknown: Json) -> TokenKind:
    if text == unknown:
        return TokenKind.UNKNOWN
    return TokenKind.BYTE if is_byte(text) else TokenKind.NORMAL
