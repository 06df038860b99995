"""The table of a vocabulary and its merges in `tokenizer.json`, checked. Knows no way of tokenising."""

from collections.abc import Mapping

from corral.convert.tokenizers.files import Folder, as_list, as_object, as_text
from corral.convert.tokenizers.vocabulary import MAX_TOKENS
from corral.errors import ModelFileError
from corral.messages import Json

_MAX_MERGES = 4 << 20


def numbers(folder: Folder) -> dict[str, int]:
    """The tokens' texts with their numbers."""
    table = as_object(folder.model.get("vocab"), "tokenizer.json: model.vocab")
    if not table or len(table) > MAX_TOKENS:
        raise ModelFileError(f"tokenizer.json: model.vocab has {len(table)} tokens, not between 1 and {MAX_TOKENS}")
    found: dict[int, str] = {}
    for text, number in table.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MAX_TOKENS:
            raise ModelFileError(f'tokenizer.json: token "{text[:80]}" has the number {number}')
        as_text(text, f"tokenizer.json: token {number}")
        if found.setdefault(number, text) != text:
            raise ModelFileError(
                f'tokenizer.json: tokens "{found[number][:80]}" and "{text[:80]}" have the number {number}'
            )
    return {text: number for number, text in found.items()}


def merges(folder: Folder, known: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs that become one token, the first of them first; written `a b` or `["a", "b"]`."""
    listed = as_list(folder.model.get("merges"), "tokenizer.json: model.merges")
    if len(listed) > _MAX_MERGES:
        raise ModelFileError(f"tokenizer.json: model.merges has more than {_MAX_MERGES} pairs")
    found = [_pair(merge) for merge in listed]
    for left, right in found:
        if left not in known or right not in known or left + right not in known:
            raise ModelFileError(f'tokenizer.json: the merge of "{left[:80]}" and "{right[:80]}" has no token')
    return found


def _pair(merge: Json) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise ModelFileError(f'tokenizer.json: a merge is not a pair of tokens: "{str(merge)[:80]}"')
    return str(parts[0]), str(parts[1])
