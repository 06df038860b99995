"""What is written of a checkpoint's tokenizer files: keys, special tokens, templates; and what is refused of them."""

import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import gguf
from corral.convert.tokenizers import read
from corral.errors import ModelFileError
from corral.gguf import GGUF, Array
from tests.tokenizer_models import write_model

BYTES = [chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))]
LETTERS = {text: number for number, text in enumerate([*BYTES, *(chr(256 + index) for index in range(68))])}
Json = Any


def bpe(**changes: Json) -> dict[str, Json]:
    """A `tokenizer.json` of byte-level BPE: 256 letters, two merges, a mark and a tag."""
    vocabulary = {**LETTERS, "he": 256, "hel": 257}
    return {
        "added_tokens": [
            {"id": 258, "content": "<|im_end|>", "special": True},
            {"id": 259, "content": "<tag>", "special": False},
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["h e", "he l"]},
        **changes,
    }


def made(tmp_path: Path, size: int = 260, config: Mapping[str, Json] | None = None, **files: Json) -> GGUF:
    """The GGUF file of a checkpoint with these files; `_` in a name stands for its last dot."""
    found = {}
    for key, content in files.items():
        stem, _, ending = key.rpartition("_")
        path = tmp_path / f"{stem}.{ending}"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        found[path.name] = path
    return gguf.read(write_model(tmp_path / "model.gguf", read(found, config or {}, size), size))


def refusal(tmp_path: Path, size: int = 260, config: Mapping[str, Json] | None = None, **files: Json) -> str:
    with pytest.raises(ModelFileError) as raised:
        made(tmp_path, size, config, **files)
    return str(raised.value)


def values(file: GGUF, key: str) -> tuple[Json, ...]:
    return tuple(file.values(key))


def numbers(file: GGUF) -> dict[str, Json]:
    """Special tokens and flags by what follows `tokenizer.ggml.`."""
    found = {key.removeprefix("tokenizer.ggml."): value for key, value in file.metadata.items()}
    return {key: value for key, value in found.items() if key.endswith("_id") or key.startswith("add_")}


def test_tokens_have_kinds_and_holes_are_filled(tmp_path: Path) -> None:
    added = [{"id": 262, "content": "<|im_end|>", "special": True}, {"id": 260, "content": "<tag>", "special": False}]
    file = made(tmp_path, 264, tokenizer_json=bpe(added_tokens=added))
    assert values(file, "tokenizer.ggml.tokens")[254:] == (
        *list(LETTERS)[254:],
        *("he", "hel", "[PAD258]", "[PAD259]", "<tag>", "[PAD261]", "<|im_end|>", "[PAD263]"),
    )
    assert values(file, "tokenizer.ggml.token_type")[256:] == (1, 1, 5, 5, 4, 5, 3, 5)
    assert values(file, "tokenizer.ggml.merges") == ("h e", "he l")
    assert (file.text("tokenizer.ggml.model"), file.text("tokenizer.ggml.pre")) == ("gpt2", "gpt-2")


def test_a_filler_never_takes_the_text_of_a_token(tmp_path: Path) -> None:
    added = [{"id": 258, "content": "[PAD259]", "special": False}]
    file = made(tmp_path, 260, tokenizer_json=bpe(added_tokens=added))
    assert values(file, "tokenizer.ggml.tokens")[258:] == ("[PAD259]", "[[PAD259]]")


def test_merges_may_be_pairs(tmp_path: Path) -> None:
    model = {**bpe()["model"], "merges": [["h", "e"], ["he", "l"]]}
    file = made(tmp_path, tokenizer_json=bpe(model=model))
    assert values(file, "tokenizer.ggml.merges") == ("h e", "he l")


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(regex: str, **changes: Json) -> Json:
    return {**SPLIT, "pattern": {"Regex": regex}, **changes}


@pytest.mark.parametrize(
    ("pre_tokenizer", "changes", "name"),
    [
        (sequence(split(LLAMA_3), BYTES_ONLY), {"ignore_merges": True}, "llama-bpe"),
        (sequence(split(LLAMA_3), BYTES_ONLY), {}, "dbrx"),
        (sequence(split(LLAMA_3, behavior="Removed", invert=True), BYTES_ONLY), {}, "dbrx"),
        (sequence(split(LLAMA_3.replace("{1,3}", "")), BYTES_ONLY), {}, "qwen2"),
        (
            sequence(
                split(
                    LLAMA_3.replace("{1,3}", "").replace(
                        "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
                        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
                    )
                ),
                BYTES_ONLY,
            ),
            {},
            "qwen2",
        ),
        (sequence({"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}), {}, "smollm"),
        (sequence(sequence({"type": "ByteLevel", "use_regex": True})), {}, "gpt-2"),
        (sequence(split("[a-z]+"), BYTES_ONLY), {}, "default"),
        (sequence(split(LLAMA_3, behavior="MergedWithNext"), BYTES_ONLY), {}, "default"),
        (sequence({"type": "Whitespace"}, BYTES_ONLY), {}, "default"),
        (sequence({**SPLIT, "pattern": {"String": " "}}, BYTES_ONLY), {}, "default"),
    ],
)
def test_the_way_to_cut_texts_up_is_recognised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pre_tokenizer: Json, changes: Json, name: str
) -> None:
    model = {**bpe()["model"], **changes}
    file = made(tmp_path, tokenizer_json=bpe(pre_tokenizer=pre_tokenizer, model=model))
    assert file.text("tokenizer.ggml.pre") == name
    assert ("no way of the engine to cut a text up fits" in caplog.text) == (name == "default")


def test_changes_that_the_engine_does_not_make_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps = [{"type": "NFC"}, {"type": "Lowercase"}]
    made(tmp_path, tokenizer_json=bpe(normalizer={"type": "Sequence", "normalizers": steps}))
    assert "the tokenizer changes texts first, the engine does not: Lowercase" in caplog.text


def template(*pieces: str) -> Json:
    single = [{"Sequence": {"id": "A"}} if piece == "A" else {"SpecialToken": {"id": piece}} for piece in pieces]
    return {"type": "TemplateProcessing", "single": single}


@pytest.mark.parametrize(
    ("files", "config", "expected"),
    [
        pytest.param(
            {"tokenizer_config_json": {"bos_token": "<|im_end|>", "eos_token": {"content": "<|im_end|>"}}},
            {},
            {"bos_token_id": 258, "eos_token_id": 258, "add_bos_token": False, "add_eos_token": False},
            id="named, as text and as an object",
        ),
        pytest.param(
            {"special_tokens_map_json": {"eos_token": "<|im_end|>", "pad_token": "he"}},
            {"eos_token_id": 1, "bos_token_id": 2},
            {"bos_token_id": 2, "eos_token_id": 258, "padding_token_id": 256, "eot_token_id": 1}
            | {"add_bos_token": False, "add_eos_token": False},
            id="named before numbered",
        ),
        pytest.param(
            {"generation_config_json": {"eos_token_id": [257, 258], "pad_token_id": 3}},
            {"eos_token_id": 257, "bos_token_id": None, "pad_token_id": -1, "sep_token_id": 9999, "cls_token_id": True},
            {"eos_token_id": 257, "eot_token_id": 258, "padding_token_id": 3}
            | {"add_bos_token": False, "add_eos_token": False},
            id="several ends, and numbers that are none",
        ),
        pytest.param(
            {"tokenizer_json": bpe(post_processor=template("<|im_end|>", "A", "hel"))},
            {"bos_token_id": 258, "eos_token_id": 257},
            {
                "bos_token_id": 258,
                "eos_token_id": 257,
                "eot_token_id": 258,
                "add_bos_token": True,
                "add_eos_token": True,
            },
            id="added by the template",
        ),
        pytest.param(
            {
                "tokenizer_json": bpe(post_processor=template("<|im_end|>", "A", "hel")),
                "tokenizer_config_json": {"add_bos_token": False, "add_eos_token": False},
            },
            {"bos_token_id": 258, "eos_token_id": 257},
            {"bos_token_id": 258, "eos_token_id": 257, "eot_token_id": 258, "add_bos_token": False}
            | {"add_eos_token": False},
            id="flags before the template",
        ),
        pytest.param(
            {
                "tokenizer_json": bpe(
                    post_processor={"type": "RobertaProcessing", "cls": ["he", 256], "sep": ["hel", 257]}
                ),
                "tokenizer_config_json": {"bos_token": "he", "eos_token": "hel"},
            },
            {},
            {
                "bos_token_id": 256,
                "eos_token_id": 257,
                "eot_token_id": 258,
                "add_bos_token": True,
                "add_eos_token": True,
            },
            id="added as RoBERTa does",
        ),
        pytest.param(
            {"tokenizer_config_json": {"add_bos_token": True, "eos_token": "hel"}},
            {},
            {"eos_token_id": 257, "eot_token_id": 258, "add_bos_token": False, "add_eos_token": False},
            id="no token to add",
        ),
    ],
)
def test_special_tokens_and_flags(
    tmp_path: Path, files: dict[str, Json], config: dict[str, Json], expected: dict[str, Json]
) -> None:
    assert numbers(made(tmp_path, config=config, **{"tokenizer_json": bpe(), **files})) == expected


def test_every_end_of_an_answer_is_kept(tmp_path: Path) -> None:
    generation = {"eos_token_id": [257, 258, 257, 70000]}
    file = made(tmp_path, tokenizer_json=bpe(), generation_config_json=generation)
    assert values(file, "tokenizer.ggml.eos_token_ids") == (257, 258)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config_json": {"chat_template": "one"}}, {"": "one"}),
        ({"chat_template_json": {"chat_template": "json"}}, {"": "json"}),
        ({"tokenizer_config_json": {"chat_template": "one"}, "chat_template_jinja": b"file"}, {"": "file"}),
        (
            {
                "tokenizer_config_json": {
                    "chat_template": [
                        {"name": "default", "template": "one"},
                        {"name": "tool_use", "template": "two"},
                        {"name": "../odd", "template": "three"},
                    ]
                }
            },
            {"": "one", ".tool_use": "two"},
        ),
        ({}, {}),
    ],
)
def test_chat_templates(tmp_path: Path, files: dict[str, Json], expected: dict[str, str]) -> None:
    file = made(tmp_path, tokenizer_json=bpe(), **files)
    key = "tokenizer.chat_template"
    found = {
        name.removeprefix(key): file.text(name) for name in file.metadata if name.startswith(key) and name != f"{key}s"
    }
    assert found == expected
    named = [name.removeprefix(".") for name in expected if name]
    assert (list(values(file, f"{key}s")) if f"{key}s" in file.metadata else []) == named


def test_bert_marks_are_found_by_their_texts(tmp_path: Path) -> None:
    lines = "\n".join(["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "##", ""])
    file = made(tmp_path, 9, {"type_vocab_size": 3}, vocab_txt=lines.encode())
    assert values(file, "tokenizer.ggml.tokens") == (
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "▁a",
        "b",
        "▁##",
    )
    assert values(file, "tokenizer.ggml.token_type") == (3, 5, 2, 3, 3, 3, 1, 1, 1)
    assert numbers(file) == {
        "bos_token_id": 3,
        "eos_token_id": 4,
        "unknown_token_id": 2,
        "seperator_token_id": 4,
        "padding_token_id": 0,
        "cls_token_id": 3,
        "mask_token_id": 5,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_sep_token": True,
    }
    assert file.metadata["tokenizer.ggml.normalizer.lowercase"] is True
    assert file.metadata["tokenizer.ggml.token_type_count"] == 3


def field(number: int, kind: int, payload: bytes) -> bytes:
    """A field of a protobuf message."""
    return varint(number << 3 | kind) + (varint(len(payload)) if kind == 2 else b"") + payload


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def piece(text: str, kind: int, score: float = 0.0) -> bytes:
    return field(1, 2, field(1, 2, text.encode()) + field(2, 5, struct.pack("<f", score)) + field(3, 0, varint(kind)))


PIECES = piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3) + piece("▁▁", 4)
PIECES += b"".join(piece(f"<0x{byte:02X}>", 6) for byte in range(256)) + piece("▁a", 1, -1.0)
BPE = field(2, 2, field(3, 0, varint(2)))


def test_sentencepiece_says_its_own_special_tokens(tmp_path: Path) -> None:
    file = made(tmp_path, 262, tokenizer_model=PIECES + BPE + field(3, 2, field(3, 0, varint(0))))
    assert numbers(file) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": False,
    }
    tokens, kinds = values(file, "tokenizer.ggml.tokens"), values(file, "tokenizer.ggml.token_type")
    assert (tokens[:5], kinds[:5]) == (("<unk>", "<s>", "</s>", "  ", "<0x00>"), (2, 3, 3, 4, 6))
    assert (tokens[260:], kinds[260:]) == (("▁a", "[PAD261]"), (1, 5))
    assert values(file, "tokenizer.ggml.scores")[260:] == (-1.0, -1000.0)


def test_settings_say_last_whether_a_space_is_put_in_front(tmp_path: Path) -> None:
    file = made(tmp_path, 261, tokenizer_model=PIECES + BPE, tokenizer_config_json={"add_prefix_space": False})
    assert file.metadata["tokenizer.ggml.add_space_prefix"] is False


def test_an_added_token_takes_the_place_of_a_piece(tmp_path: Path) -> None:
    settings = {"added_tokens_decoder": {"3": {"content": "<|im_start|>", "special": True}}}
    file = made(tmp_path, 261, tokenizer_model=PIECES + BPE, tokenizer_config_json=settings)
    assert values(file, "tokenizer.ggml.tokens")[3] == "<|im_start|>"
    assert values(file, "tokenizer.ggml.token_type")[3] == 3


def test_an_added_token_with_a_role_is_a_mark(tmp_path: Path) -> None:
    added = {"<pad>": 261, "<tool>": 262, "<|end|>": 263, "<sep>": 264}
    special = {"pad_token": "<pad>", "additional_special_tokens": [{"content": "<sep>"}]}
    model = PIECES + BPE
    file = made(tmp_path, 265, tokenizer_model=model, added_tokens_json=added, special_tokens_map_json=special)
    assert values(file, "tokenizer.ggml.token_type")[261:] == (3, 4, 3, 3)
    assert file.metadata["tokenizer.ggml.padding_token_id"] == 261


def test_a_table_in_base64_is_no_sentencepiece(tmp_path: Path) -> None:
    file = made(tmp_path, tokenizer_model=b"IQ== 0\nIg== 1\n", tokenizer_json=bpe())
    assert file.text("tokenizer.ggml.model") == "gpt2"


def with_model(**changes: Json) -> Json:
    return bpe(model={**bpe()["model"], **changes})


METASPACE = {"type": "Metaspace", "replacement": "▁"}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "unknown tokenizer format"),
        ({"tokenizer_model": b"IQ== 0\n"}, "unknown tokenizer format"),
        ({"tokenizer_json": {}}, "unknown tokenizer format"),
        ({"tokenizer_json": with_model(type="WordLevel")}, "unknown tokenizer format"),
        ({"tokenizer_json": bpe(pre_tokenizer=None, decoder=None)}, "unknown tokenizer format"),
        ({"tokenizer_json": []}, "tokenizer.json is not a JSON object"),
        ({"tokenizer_json": b"{"}, '"tokenizer.json" is not JSON: Expecting property name enclosed in double quotes'),
        ({"tokenizer_json": b"[" * 100_000}, '"tokenizer.json" is not JSON: it is nested too deeply'),
        ({"tokenizer_json": b'"\xff"'}, '"tokenizer.json" is not UTF-8: byte 1'),
        ({"tokenizer_json": {"model": []}}, "tokenizer.json: model is not a JSON object"),
        ({"tokenizer_json": with_model(vocab=[])}, "tokenizer.json: model.vocab is not a JSON object"),
        ({"tokenizer_json": with_model(vocab={})}, "tokenizer.json: model.vocab has 0 tokens"),
        ({"tokenizer_json": with_model(vocab={"a": -1})}, 'tokenizer.json: token "a" has the number -1'),
        (
            {"tokenizer_json": with_model(vocab={"a": 1 << 40})},
            'tokenizer.json: token "a" has the number 1099511627776',
        ),
        ({"tokenizer_json": with_model(vocab={"a": True})}, 'tokenizer.json: token "a" has the number True'),
        (
            {"tokenizer_json": with_model(vocab={"a": 0, "b": 0})},
            'tokenizer.json: tokens "a" and "b" have the number 0',
        ),
        ({"tokenizer_json": with_model(vocab={"\ud800": 0})}, "tokenizer.json: token 0 has half a surrogate pair"),
        ({"tokenizer_json": with_model(merges={"a": 1})}, "tokenizer.json: model.merges is not a JSON array"),
        ({"tokenizer_json": with_model(merges=["a b c"])}, 'tokenizer.json: a merge is not a pair of tokens: "a b c"'),
        ({"tokenizer_json": with_model(merges=[["a", 1]])}, "tokenizer.json: a merge is not a pair of tokens"),
        ({"tokenizer_json": with_model(merges=["a b"])}, 'tokenizer.json: the merge of "a" and "b" has no token'),
        ({"tokenizer_json": bpe(added_tokens={})}, "tokenizer.json: added_tokens is not a JSON array"),
        ({"tokenizer_json": bpe(added_tokens=[1])}, "tokenizer.json: added_tokens is not a JSON object"),
        ({"tokenizer_json": bpe(added_tokens=[{"content": "a"}])}, "tokenizer.json: an added token has no number"),
        ({"tokenizer_json": bpe(added_tokens=[{"id": 3}])}, "tokenizer.json: added token 3 is not text"),
        (
            {"tokenizer_json": bpe(added_tokens=[{"id": 300, "content": "a b"}])},
            "the tokenizer has tokens up to number 300, and the model only 260 of them",
        ),
        (
            {"tokenizer_json": bpe(added_tokens=[{"id": 258, "content": "he"}])},
            'token "he" has the numbers 256 and 258',
        ),
        ({"tokenizer_json": bpe(pre_tokenizer=[])}, "tokenizer.json: pre_tokenizer is not a JSON object"),
        (
            {"tokenizer_json": bpe(post_processor=template("A") | {"single": 1})},
            "tokenizer.json: post_processor is not",
        ),
        ({"tokenizer_json": bpe(), "tokenizer_config_json": []}, "tokenizer_config.json is not a JSON object"),
        (
            {"tokenizer_json": bpe(), "tokenizer_config_json": {"added_tokens_decoder": {"x": {"content": "a"}}}},
            "tokenizer_config.json: an added token has no number",
        ),
        (
            {"tokenizer_json": bpe(), "tokenizer_config_json": {"chat_template": 1}},
            "tokenizer_config.json: chat_template is neither text nor a list of templates",
        ),
        (
            {"tokenizer_json": bpe(), "tokenizer_config_json": {"chat_template": [{"name": "default"}]}},
            "tokenizer_config.json: chat_template is not text",
        ),
        (
            {"tokenizer_json": bpe(), "chat_template_jinja": b"x" * ((8 << 20) + 1)},
            'the chat template "default" is larger than 8 MB',
        ),
        (
            {"tokenizer_json": bpe(decoder=None, pre_tokenizer=METASPACE)},
            "tokenizer.json: the vocabulary has no token for every byte",
        ),
        (
            {"tokenizer_json": bpe(model={**UNIGRAM, "vocab": [["a"]]})},
            "tokenizer.json: token 0 is not a text with its score",
        ),
        (
            {"tokenizer_json": bpe(model={**UNIGRAM, "vocab": [["a", 1e999]]})},
            "tokenizer.json: token 0 is not a text with",
        ),
        (
            {
                "tokenizer_json": bpe(
                    model=UNIGRAM, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}
                )
            },
            "tokenizer.json: the table of replaced characters is broken",
        ),
        (
            {"tokenizer_json": bpe(model=UNIGRAM, normalizer={"type": "Precompiled", "precompiled_charsmap": "?"})},
            "tokenizer.json: precompiled_charsmap is not base64",
        ),
        ({"vocab_txt": b"a\na\n"}, '"vocab.txt" has "a" in the lines 1 and 2'),
        ({"tokenizer_model": piece("", 1)}, '"tokenizer.model" is not a SentencePiece model: piece 0 is empty'),
        (
            {"tokenizer_model": piece("a", 9)},
            '"tokenizer.model" is not a SentencePiece model: piece 0 is of the unknown kind 9',
        ),
        ({"tokenizer_model": piece("a", 6)}, '"tokenizer.model" is not a SentencePiece model: piece 0 is the byte "a"'),
        (
            {"tokenizer_model": piece("a", 1, float("nan"))},
            '"tokenizer.model" is not a SentencePiece model: piece 0 has the score nan',
        ),
        (
            {"tokenizer_model": PIECES[:-1]},
            '"tokenizer.model" is not a SentencePiece model: ',
        ),
        (
            {"tokenizer_model": b"\n\xff\xff\xff\x7f"},
            '"tokenizer.model" is not a SentencePiece model: 268435455 bytes at',
        ),
        (
            {"tokenizer_model": b"\n" + b"\xff" * 11},
            '"tokenizer.model" is not a SentencePiece model: a number of too many',
        ),
        ({"tokenizer_model": PIECES + field(2, 2, field(3, 0, varint(4)))}, '"tokenizer.model" is of kind 4, neither'),
        ({"tokenizer_model": piece("<unk>", 2) + BPE}, "tokenizer.model: the vocabulary has no token for every byte"),
        ({"tokenizer_model": b"\n\x00" + BPE}, '"tokenizer.model" is not a SentencePiece model: piece 0 is empty'),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, files: dict[str, Json], sentence: str) -> None:
    assert refusal(tmp_path, **files).startswith(sentence)


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.convert.tokenizers.files.MAX_BYTES", 1 << 20)
    assert refusal(tmp_path, tokenizer_json=b" " * ((1 << 20) + 1)) == '"tokenizer.json" is larger than 1 MB'


@pytest.mark.parametrize("size", [0, -1, (1 << 20) + 1])
def test_a_model_has_a_sane_number_of_tokens(tmp_path: Path, size: int) -> None:
    assert refusal(tmp_path, size, tokenizer_json=bpe()) == f"the model has {size} tokens, not between 1 and 1048576"


@given(data=st.data())
def test_a_changed_sentencepiece_model_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = bytearray(PIECES + BPE)
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "tokenizer.model"
    path.write_bytes(bytes(model[: data.draw(st.integers(0, len(model)))]))
    with suppress(ModelFileError):
        assert "tokenizer.ggml.tokens" in read({"tokenizer.model": path}, {}, 300)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(data=st.data())
def test_a_changed_json_file_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = bpe(post_processor=template("<|im_end|>", "A"))
    settings: Json = {"chat_template": [{"name": "default", "template": "x"}], "eos_token": "he", "add_bos_token": True}
    target = data.draw(st.sampled_from([tokenizer, tokenizer["model"], tokenizer["added_tokens"][0], settings]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    folder = tmp_path_factory.mktemp("changed")
    files = {}
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        files[name] = folder / name
        files[name].write_text(json.dumps(value))
    with suppress(ModelFileError):
        assert "tokenizer.ggml.tokens" in read(files, {}, 300)


def test_a_large_vocabulary_is_an_array_of_its_tokens(tmp_path: Path) -> None:
    file = made(tmp_path, 5000, tokenizer_json=bpe())
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Array)
    assert len(tokens) == 5000
