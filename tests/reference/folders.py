"""What stands beside the weights in a checkpoint's folder: tokenizers of small vocabularies, and modules."""

import json
from pathlib import Path

from tests.tiny_models import bpe_vocabulary, wordpiece_vocabulary


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges) of byte-level BPE: three special tokens, printable ASCII and what the merges make of it."""
    tokens, merges = bpe_vocabulary()
    letters = {chr(code) for code in range(33, 127)} | {"Ġ", "Ċ"}
    plain = [token for token in tokens[3:] if token in letters or (len(token) > 1 and set(token) <= letters)]
    return [*tokens[:3], *plain], [merge for merge in merges if set(merge) - {" "} <= letters]


def write_bpe(folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json` of `vocabulary`."""
    tokens, merges = vocabulary()
    special = [
        {"id": number, "content": token, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for number, token in enumerate(tokens[:3])
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": merges,
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokens[0], "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_wordpiece(folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json` of an uncased BERT's small vocabulary."""
    tokens = {token: number for number, token in enumerate(wordpiece_vocabulary())}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ("[CLS]", "[SEP]")
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": tokens[token], "content": token, **plain} for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [tokens[name]], "tokens": [name]} for name in names},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": tokens,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_modules(folder: Path, mode: str) -> None:
    """What sentence-transformers writes of a model whose vectors are pooled in this way."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    flags = {f"pooling_mode_{name}": name.startswith(mode) for name in ("mean_tokens", "cls_token", "lasttoken")}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**flags}))
