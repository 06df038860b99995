"""Byte-level BPE of `tokenizer.json`, the way of GPT-2 and most models since. `pre_tokenizers` knows its regexes."""

from corral.convert.tokenizers import json_vocabulary, pre_tokenizers
from corral.convert.tokenizers.files import Folder
from corral.convert.tokenizers.vocabulary import Token, TokenKind, Vocabulary


def is_byte_level(folder: Folder) -> bool:
    """Whether its tokens are spelled in the letters that stand for bytes."""
    steps = [*folder.steps("pre_tokenizer"), *folder.steps("decoder")]
    return any(step.get("type") == "ByteLevel" for step in steps)


def read(folder: Folder) -> Vocabulary:
    numbers = json_vocabulary.numbers(folder)
    folder.warn_of_normalizers("NFC")
    merges = json_vocabulary.merges(folder, numbers)
    tokens = {number: Token(text) for text, number in numbers.items()}
    for added in folder.added_tokens:
        tokens[added.number] = Token(added.text, TokenKind.CONTROL if added.special else TokenKind.USER_DEFINED)
    return Vocabulary(
        model="gpt2",
        tokens=tokens,
        pre=pre_tokenizers.recognise(folder),
        merges=[f"{left} {right}" for left, right in merges],
    )
