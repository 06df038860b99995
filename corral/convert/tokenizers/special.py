"""Which tokens begin, end and fill a text, and whether the tokenizer puts them there by itself.

Files name them by text or by number; the first that says so is right: `tokenizer_config.json`,
`special_tokens_map.json`, `config.json`, `generation_config.json`, the vocabulary.
"""

import logging
from collections.abc import Mapping

from corral.convert.tokenizers.files import Folder, as_list, as_object, as_several, content
from corral.convert.tokenizers.vocabulary import Vocabulary
from corral.gguf.types import ValueType
from corral.gguf.writer import encode, encode_array
from corral.messages import Json

log = logging.getLogger(__name__)

_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "cls": "tokenizer.ggml.cls_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|return|>", "<EOT>", "[EOT]")
_ENDS_OF_MESSAGE = ("<|eom_id|>", "<|call|>")


def fields(folder: Folder, vocabulary: Vocabulary) -> dict[str, bytes]:
    """Keys of the special tokens and the flags; numbers outside the vocabulary are left out."""
    ends = _ends(folder, vocabulary)
    roles = _roles(folder, vocabulary, ends)
    found = {_KEYS[role]: encode(ValueType.UINT32, number) for role, number in roles.items()}
    if len(ends) > 1:
        found["tokenizer.ggml.eos_token_ids"] = encode_array(ValueType.INT32, ends)
    begins, closes = _adds(folder, vocabulary, roles)
    found["tokenizer.ggml.add_bos_token"] = encode(ValueType.BOOL, begins)
    found["tokenizer.ggml.add_eos_token"] = encode(ValueType.BOOL, closes)
    if vocabulary.model == "bert":
        found["tokenizer.ggml.add_sep_token"] = encode(ValueType.BOOL, "sep" in roles)
    return found


def _roles(folder: Folder, vocabulary: Vocabulary, ends: list[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for role in _ROLES:
        number = _named(folder, vocabulary, role)
        if number is None:
            number = _numbered(folder, vocabulary, role)
        if number is None:
            number = vocabulary.unknown if role == "unk" else vocabulary.roles.get(role)
        if number is not None:
            found[role] = number
    if vocabulary.model == "bert":
        _complete_bert(vocabulary, found)
    if ends and "eos" not in found:
        found["eos"] = ends[0]
    if "eos" not in found and "bos" in found:
        found["eos"] = found["bos"]  # without the key the engine takes whatever token has the number it is used to
    rest = [number for number in ends if number != found.get("eos")]
    for role, texts in (("eot", _ENDS_OF_TURN), ("eom", _ENDS_OF_MESSAGE)):
        known = [number for text in texts if (number := vocabulary.number(text)) not in (None, found.get("eos"))]
        likely = [number for number in rest if number in known] or known[:1]
        if not likely and role == "eot":
            likely = rest
        if likely:
            found[role] = likely[0]
            rest = [number for number in rest if number != likely[0]]
    return found


def _ends(folder: Folder, vocabulary: Vocabulary) -> list[int]:
    """Every token that ends an answer."""
    for source in (folder.generation, folder.config):
        listed = source.get("eos_token_id")
        found = [int(number) for number in as_several(listed) if _is_number(number, vocabulary)]
        if found:
            return list(dict.fromkeys(found))
    return []


def _named(folder: Folder, vocabulary: Vocabulary, role: str) -> int | None:
    for source in (folder.settings, folder.special_tokens):
        text = content(source.get(f"{role}_token"))
        number = vocabulary.number(text) if isinstance(text, str) else None
        if number is not None:
            return number
    return None


def _numbered(folder: Folder, vocabulary: Vocabulary, role: str) -> int | None:
    for source in (folder.config, folder.generation):
        value = source.get(f"{role}_token_id")
        number: Json = value[0] if isinstance(value, list) and value else value
        if _is_number(number, vocabulary):
            return int(number)
    return None


def _is_number(value: Json, vocabulary: Vocabulary) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(vocabulary.tokens)


def _complete_bert(vocabulary: Vocabulary, found: dict[str, int]) -> None:
    """BERT's marks stand around every text, whatever they are called in the files."""
    for role, text in (("cls", "[CLS]"), ("sep", "[SEP]"), ("unk", "[UNK]"), ("pad", "[PAD]"), ("mask", "[MASK]")):
        number = vocabulary.number(text)
        if number is not None:
            found.setdefault(role, number)
    if "cls" in found:
        found["bos"] = found["cls"]
    if "sep" in found:
        found.setdefault("eos", found["sep"])


def _adds(folder: Folder, vocabulary: Vocabulary, roles: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether the tokenizer puts bos in front of a text and eos behind it."""
    first, last = _surroundings(folder, vocabulary)
    begins, closes = folder.settings.get("add_bos_token"), folder.settings.get("add_eos_token")
    if not isinstance(begins, bool):
        begins = first is not None and first in (roles.get("bos"), roles.get("cls"))
        if first is None and folder.tokenizer is None:
            begins = vocabulary.model in ("llama", "bert")
    if not isinstance(closes, bool):
        closes = last is not None and last in (roles.get("eos"), roles.get("sep"))
    if begins and "bos" not in roles:
        log.warning("the tokenizer puts a token in front of every text, but no file says which")
    return begins and "bos" in roles, closes and "eos" in roles


def _surroundings(folder: Folder, vocabulary: Vocabulary) -> tuple[int | None, int | None]:
    """The token that `tokenizer.json` puts in front of a text, and the one behind it."""
    first: int | None = None
    last: int | None = None
    for step in folder.steps("post_processor"):
        match step.get("type"):
            case "TemplateProcessing":
                pieces = [
                    as_object(piece, "tokenizer.json: post_processor")
                    for piece in as_list(step.get("single"), "tokenizer.json: post_processor")
                ]
                if pieces and "SpecialToken" in pieces[0]:
                    first = _piece_number(pieces[0], vocabulary)
                if len(pieces) > 1 and "SpecialToken" in pieces[-1]:
                    last = _piece_number(pieces[-1], vocabulary)
            case "BertProcessing" | "RobertaProcessing":
                first, last = _pair_number(step.get("cls"), vocabulary), _pair_number(step.get("sep"), vocabulary)
    return first, last


def _piece_number(piece: Mapping[str, Json], vocabulary: Vocabulary) -> int | None:
    text = as_object(piece["SpecialToken"], "tokenizer.json: post_processor").get("id")
    return vocabulary.number(text) if isinstance(text, str) else None


def _pair_number(pair: Json, vocabulary: Vocabulary) -> int | None:
    number = pair[1] if isinstance(pair, list) and len(pair) == 2 else None
    return number if _is_number(number, vocabulary) else None
