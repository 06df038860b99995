"""Tokenizers of checkpoints: the real engine makes of a text the tokens that the checkpoint's own library makes."""

import io
import json
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from corral.convert.tokenizers import pre_tokenizers as ours
from corral.convert.tokenizers import protobuf, read
from tests.tokenizer_models import engine_tokens, write_model
from tests.tokenizer_texts import LEARNT_FROM, TEXTS

MARKS = ("<|im_start|>user\nHi<|im_end|>\n", "a<|im_end|>b", "<|im_end|><|im_end|>", " <|im_end|> x", "<tool>x</tool>")
SPARE = 7
"""Tokens that a model has more than its tokenizer."""


Reference = tokenizers.Tokenizer | sentencepiece.SentencePieceProcessor


def written(folder: Path, names: Sequence[str], size: int) -> Path:
    """A tiny model with the tokenizer of these files."""
    files = {name: folder / name for name in names}
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    return write_model(folder / "model.gguf", read(files, config, size), size)


def compare(
    folder: Path, names: Sequence[str], reference: Reference, texts: Sequence[str], *, add_special: bool = False
) -> dict[str, tuple[list[int], list[int]]]:
    """Texts of which the engine makes other tokens than the reference, with both."""
    if isinstance(reference, tokenizers.Tokenizer):
        size = reference.get_vocab_size()
        expected = [reference.encode(text, add_special_tokens=add_special).ids for text in texts]
    else:
        size = reference.get_piece_size()
        expected = [reference.encode(text) for text in texts]
    found = engine_tokens(written(folder, names, size + SPARE), texts, add_special=add_special)
    pairs = zip(texts, found, expected, strict=True)
    return {text: (ids, wanted) for text, ids, wanted in pairs if ids != wanted}


def step(regex: str) -> pre_tokenizers.PreTokenizer:
    """A step of `NAMES` as the library has it."""
    match regex:
        case ours.GPT_2:
            return pre_tokenizers.ByteLevel(add_prefix_space=False)
        case ours.DIGIT:
            return pre_tokenizers.Digits(individual_digits=True)
        case ours.DIGITS:
            return pre_tokenizers.Digits(individual_digits=False)
        case ours.PUNCTUATION:
            return pre_tokenizers.Punctuation("contiguous")
    return pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")


def byte_level(steps: Sequence[str], *, ignore_merges: bool = False) -> tokenizers.Tokenizer:
    """A byte-level BPE of some hundred tokens that cuts texts up by these steps."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    last = [] if ours.GPT_2 in steps else [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence([*map(step, steps), *last])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(LEARNT_FROM, trainer)
    made.add_tokens(["<tool>", "</tool>"])
    return made


QWEN_2 = next(steps for steps, name in ours.NAMES.items() if name == "qwen2")
WAYS = [*ours.NAMES.items(), *ours.WHOLE_WORDS.items()]
ONLY_LETTERS = "the engine's regex does not join combining marks to the letter before them"
CHINESE_DIGITS = "to the engine a number does not end between a digit and a letter that is no ASCII one"
OTHERWISE = {
    "tekken": (ONLY_LETTERS, {"तेज", "তাড়া", "สุนัข", "ქართ", "\nThe"}),
    "gpt-4o": (ONLY_LETTERS, {"तेज", "তাড়া", "สุนัข", "ქართ", "\nThe"}),
    "tiny_aya": (CHINESE_DIGITS, {"快速的", "\nThe"}),
}
"""Ways in which the engine differs by its nature, and how the texts begin that show it."""


@pytest.mark.parametrize(("steps", "name"), WAYS, ids=[f"{name}-{len(steps)}" for steps, name in WAYS])
def test_byte_level_tokens_are_those_of_the_library(tmp_path: Path, steps: tuple[str, ...], name: str) -> None:
    made = byte_level(steps, ignore_merges=name in ours.WHOLE_WORDS.values())
    made.save(str(tmp_path / "tokenizer.json"))
    different = compare(tmp_path, ["tokenizer.json"], made, (*TEXTS, *MARKS))
    begins = OTHERWISE.get(name, ("", set()))[1]
    assert {text for text in different if not text.startswith(tuple(begins))} == set()
    assert all(any(text.startswith(begin) for text in different) for begin in begins)


def test_what_a_normalizer_would_have_composed_is_read_as_it_is(tmp_path: Path) -> None:
    made = byte_level(QWEN_2)
    made.normalizer = normalizers.NFC()
    made.save(str(tmp_path / "tokenizer.json"))
    composed = {text for text in TEXTS if unicodedata.normalize("NFC", text) != text}
    assert set(compare(tmp_path, ["tokenizer.json"], made, TEXTS)) == composed


def test_a_byte_level_text_begins_and_ends_as_the_template_says(tmp_path: Path) -> None:
    made = byte_level(QWEN_2)
    begin, end = "<|im_start|>", "<|endoftext|>"
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(text, made.token_to_id(text)) for text in (begin, end)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": begin, "eos_token": {"content": end}}))
    names = ["tokenizer.json", "tokenizer_config.json"]
    assert compare(tmp_path, names, made, (*TEXTS, *MARKS), add_special=True) == {}


LIKE_LLAMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
}
LIKE_GEMMA = {
    **LIKE_LLAMA,
    "add_dummy_prefix": False,
    "user_defined_symbols": ["<start_of_turn>", "▁▁", "▁▁▁▁", "\n\n", "\t"],
}
LIKE_T5 = {"model_type": "unigram", "pad_id": 3}
UNIGRAM_WITH_BYTES = {**LIKE_LLAMA, "model_type": "unigram"}


def pieces(folder: Path, options: Mapping[str, Any]) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece vocabulary of some hundred pieces that lacks rare characters, and `tokenizer.model` of it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in LEARNT_FROM for line in text.split("\n") if line),
        model_writer=model,
        vocab_size=900,
        hard_vocab_limit=False,
        character_coverage=0.98,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


SPELLED_AS_MARKS = {"<s>", "</s>", "<unk>"}
"""Texts that SentencePiece takes for text and the engine, as asked by these tests, for marks."""
PLAIN = [text for text in TEXTS if text not in SPELLED_AS_MARKS]


@pytest.mark.parametrize("options", [LIKE_LLAMA, LIKE_GEMMA, LIKE_T5], ids=["llama", "gemma", "t5"])
def test_sentencepiece_tokens_are_those_of_the_library(tmp_path: Path, options: Mapping[str, Any]) -> None:
    made = pieces(tmp_path, options)
    assert compare(tmp_path, ["tokenizer.model"], made, PLAIN) == {}


def test_a_unigram_vocabulary_with_bytes_loses_nothing(tmp_path: Path) -> None:
    """Its words are cut up otherwise: the engine's unigram tokenizer has no bytes, so another one takes its place."""
    made = pieces(tmp_path, UNIGRAM_WITH_BYTES)
    model = written(tmp_path, ["tokenizer.model"], made.get_piece_size())
    texts = [text for text in PLAIN if "\0" not in text]
    for text, ids in zip(texts, engine_tokens(model, texts), strict=True):
        assert made.decode(ids) == text.replace("▁", " ")


def test_added_tokens_stand_beside_the_pieces(tmp_path: Path) -> None:
    made = pieces(tmp_path, LIKE_LLAMA)
    size = made.get_piece_size()
    added = {"<|im_start|>": size, "<|im_end|>": size + 1}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    settings = {
        "added_tokens_decoder": {str(size + 2): {"content": "<tool>", "special": False}},
        "eos_token": "<|im_end|>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    names = ["tokenizer.model", "added_tokens.json", "tokenizer_config.json"]
    model = written(tmp_path, names, size + 3)
    begin, end, tool = size, size + 1, size + 2
    found = engine_tokens(model, ["<|im_start|>Hello<|im_end|>", "a<tool>b", "Hello"], add_special=True)
    bos = made.bos_id()
    assert found == [
        [bos, begin, *made.encode("Hello"), end],
        [bos, *made.encode("a"), tool, *made.encode("b")],
        [bos, *made.encode("Hello")],
    ]


def as_fast(made: sentencepiece.SentencePieceProcessor, *, adds_space: bool) -> tokenizers.Tokenizer:
    """The same vocabulary as the library's own kind, as checkpoints have it in `tokenizer.json`."""
    numbers = {made.id_to_piece(number): number for number in range(made.get_piece_size())}
    pairs = [
        (-made.get_score(number), numbers[text[:cut]], numbers[text[cut:]], text[:cut], text[cut:])
        for text, number in numbers.items()
        for cut in range(1, len(text))
        if text[:cut] in numbers and text[cut:] in numbers and not made.is_byte(number)
    ]
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    fast = tokenizers.Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend("▁")] if adds_space else []
    fast.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fast.add_special_tokens(["<unk>", "<s>", "</s>"])
    return fast


@pytest.mark.parametrize("adds_space", [True, False], ids=["llama", "gemma"])
def test_sentencepiece_in_a_json_file_makes_the_same_tokens(tmp_path: Path, adds_space: bool) -> None:
    made = pieces(tmp_path, {**LIKE_LLAMA, "add_dummy_prefix": adds_space})
    fast = as_fast(made, adds_space=adds_space)
    fast.save(str(tmp_path / "tokenizer.json"))
    assert compare(tmp_path, ["tokenizer.json"], fast, PLAIN) == {}
    assert compare(tmp_path, ["tokenizer.json"], made, PLAIN) == {}


def test_gemma_4_is_merged_by_its_pairs(tmp_path: Path) -> None:
    made = pieces(tmp_path, {**LIKE_LLAMA, "add_dummy_prefix": False})
    fast = as_fast(made, adds_space=False)
    fast.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma4_text", "bos_token_id": 1}))
    assert compare(tmp_path, ["tokenizer.json"], fast, PLAIN) == {}


def test_unigram_in_a_json_file_makes_the_same_tokens(tmp_path: Path) -> None:
    made = pieces(tmp_path, LIKE_T5)
    scores = [(made.id_to_piece(number), made.get_score(number)) for number in range(made.get_piece_size())]
    fast = tokenizers.Tokenizer(models.Unigram(scores, unk_id=made.unk_id(), byte_fallback=False))
    charsmap = charsmap_of((tmp_path / "tokenizer.model").read_bytes())
    fast.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.add_special_tokens(["<s>", "</s>", "<unk>"])
    fast.save(str(tmp_path / "tokenizer.json"))
    assert compare(tmp_path, ["tokenizer.json"], made, PLAIN) == {}


def charsmap_of(model: bytes) -> bytes:
    """The table of replaced characters in a SentencePiece model."""
    for number, value in protobuf.fields(memoryview(model)):
        if number == 3 and isinstance(value, memoryview):
            found = dict(protobuf.fields(value))[2]
            assert isinstance(found, memoryview)
            return bytes(found)
    raise AssertionError("no normalizer")


SPACING_MARKS = "the engine drops every combining mark, BERT only those that take no room"
WORDPIECE_OTHERWISE = {
    **dict.fromkeys(("तेज", "তাড়া", "빠른", "\nThe", "ि", "각"), SPACING_MARKS),
    "1️⃣2️⃣": "the frame around the digits is a mark to the engine, and a symbol to BERT",
    "a▁b": "the engine spells the beginning of a word so",
}


@pytest.mark.parametrize("vocabulary", ["tokenizer.json", "vocab.txt"])
def test_wordpiece_tokens_are_those_of_the_library(tmp_path: Path, minilm_folder: Path, vocabulary: str) -> None:
    made = tokenizers.Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    names = [vocabulary, "tokenizer_config.json", "special_tokens_map.json"]
    for name in (*names, "config.json"):
        shutil.copy(minilm_folder / name, tmp_path / name)
    different = compare(tmp_path, names, made, TEXTS, add_special=True)
    assert {text for text in different if not text.startswith(tuple(WORDPIECE_OTHERWISE))} == set()
    assert all(any(text.startswith(begin) for text in different) for begin in WORDPIECE_OTHERWISE)


def test_cased_wordpiece_keeps_its_capitals_and_accents(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        LEARNT_FROM, trainers.WordPieceTrainer(vocab_size=900, special_tokens=marks, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(text, made.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    texts = [text for text in TEXTS if text not in ("1️⃣2️⃣", "a▁b", "▁", "[CLS]")]
    assert compare(tmp_path, ["tokenizer.json"], made, texts, add_special=True) == {}
