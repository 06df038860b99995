"""Numbers no model can have: each is refused by the name of its key before native code divides by it."""

import dataclasses
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from corral import gguf
from corral.errors import ModelFileError
from tests.gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I32,
    STRING,
    U8,
    U32,
    U64,
    ArrayOf,
    FakeTensor,
    Header,
    Raw,
    header_of,
)
from tests.tiny_models import tiny_llama, tiny_llava

Key = tuple[str, int, Any]
Write = Callable[[Header], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path."""

    def write_file(header: Header) -> Path:
        path = tmp_path / "file.gguf"
        path.write_bytes(header.encode())
        return path

    return write_file


def refusal(path: Path) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(ModelFileError) as raised:
        gguf.read(path)
    return str(raised.value)


def changed(header: Header, *keys: Key) -> Header:
    """The header with these keys instead of, or besides, its own."""
    names = {name for name, _, _ in keys}
    return dataclasses.replace(header, keys=[*(key for key in header.keys if key[0] not in names), *keys])


@pytest.fixture
def llama(tmp_path: Path) -> Header:
    return header_of(tiny_llama(tmp_path / "llama.gguf"))


@pytest.fixture
def projector(tmp_path: Path) -> Header:
    tiny_llava(tmp_path / "model.gguf", tmp_path / "projector.gguf")
    return header_of(tmp_path / "projector.gguf")


OF_A_MODEL: list[tuple[Key, str]] = [
    (("llama.block_count", U32, 0), 'key "llama.block_count" is 0, not between 1 and 512'),
    (("llama.block_count", U32, 0xFFFFFFFF), 'key "llama.block_count" is 4294967295, not between 1 and 512'),
    (("llama.block_count", F32, 2.0), 'key "llama.block_count" is not a whole number'),
    (("llama.block_count", STRING, "2"), 'key "llama.block_count" is not a whole number'),
    (("llama.block_count", BOOL, True), 'key "llama.block_count" is not a whole number'),
    (("llama.context_length", U32, 0), 'key "llama.context_length" is 0, not between 1 and 2147483647'),
    (("llama.context_length", U64, 1 << 40), f'key "llama.context_length" is {1 << 40}, not between 1 and 2147483647'),
    (("llama.embedding_length", U32, 0), 'key "llama.embedding_length" is 0, not between 1 and 1048576'),
    (("llama.vocab_size", U32, 1 << 25), 'key "llama.vocab_size" is 33554432, not between 1 and 1048576'),
    (("llama.feed_forward_length", I32, -1), 'key "llama.feed_forward_length" is -1, not between 0 and 16777216'),
    (("llama.attention.head_count", U32, 0), 'key "llama.attention.head_count" is 0'),
    (("llama.attention.head_count", ARRAY, ArrayOf(U32, [0, 0])), 'key "llama.attention.head_count" is 0'),
    (("llama.attention.head_count", U32, 65), 'key "llama.attention.head_count" is 65, for 64 elements'),
    (
        ("llama.attention.head_count", ARRAY, ArrayOf(U32, [1] * 513)),
        'key "llama.attention.head_count" has 513 elements, more than 512 layers',
    ),
    (
        ("llama.attention.head_count", ARRAY, ArrayOf(F32, [1.0, 1.0])),
        'key "llama.attention.head_count" is not a whole number',
    ),
    (
        ("llama.attention.head_count_kv", ARRAY, ArrayOf(I32, [1, -1])),
        'key "llama.attention.head_count_kv" is -1, not between 0 and 65536',
    ),
    (("llama.attention.head_count_kv", U32, 3), 'key "llama.attention.head_count_kv" is 3, of 2 heads'),
    (("llama.attention.key_length", U32, 0), 'key "llama.attention.key_length" is 0, not between 1 and 65536'),
    (
        ("llama.attention.layer_norm_rms_epsilon", F32, -1.0),
        'key "llama.attention.layer_norm_rms_epsilon" is -1.0',
    ),
    (
        ("llama.attention.layer_norm_rms_epsilon", F32, float("nan")),
        'key "llama.attention.layer_norm_rms_epsilon" is nan',
    ),
    (("llama.rope.freq_base", F32, float("inf")), 'key "llama.rope.freq_base" is inf'),
    (("llama.rope.freq_base", F32, 0.0), 'key "llama.rope.freq_base" is 0.0, not above 0'),
    (("llama.expert_used_count", U32, 2), 'key "llama.expert_used_count" is 2, of 0 experts'),
    (("llama.expert_count", U32, 1 << 20), 'key "llama.expert_count" is 1048576, not between 0 and 1024'),
    (("llama.expert_group_count", U32, 4), 'key "llama.expert_group_count" is 4, for 0 experts'),
    (("llama.full_attention_interval", U32, 0), 'key "llama.full_attention_interval" is 0, not between 1 and 512'),
    (("llama.wkv.head_size", U32, 0), 'key "llama.wkv.head_size" is 0, not between 1 and 1048576'),
    (("llama.pooling_type", U32, 99), 'key "llama.pooling_type" is 99, not between 0 and 4'),
    (("tokenizer.ggml.tokens", U32, 5), 'key "tokenizer.ggml.tokens" is not an array of string'),
    (("tokenizer.ggml.tokens", ARRAY, ArrayOf(U8, [5])), 'key "tokenizer.ggml.tokens" is not an array of string'),
    (("tokenizer.ggml.merges", ARRAY, ArrayOf(U8, [5])), 'key "tokenizer.ggml.merges" is not an array of string'),
    (
        ("tokenizer.ggml.token_type", ARRAY, ArrayOf(U8, [1] * 400)),
        'key "tokenizer.ggml.token_type" is not an array of int32 or uint32',
    ),
    (
        ("tokenizer.ggml.scores", ARRAY, ArrayOf(F64, [1.0] * 400)),
        'key "tokenizer.ggml.scores" is not an array of float32',
    ),
    (
        ("tokenizer.ggml.precompiled_charsmap", STRING, "x"),
        'key "tokenizer.ggml.precompiled_charsmap" is not an array of int8 or uint8',
    ),
    (("split.no", U32, 3), 'key "split.no" is 3, of 3 files'),
    (("split.count", U32, 1 << 20), 'key "split.count" is 1048576, not between 0 and 65535'),
]


@pytest.mark.parametrize(("key", "sentence"), OF_A_MODEL, ids=[f"{key[0]}={key[2]}"[:60] for key, _ in OF_A_MODEL])
def test_a_model_with_senseless_numbers_is_refused(write: Write, llama: Header, key: Key, sentence: str) -> None:
    others: Sequence[Key] = [("split.count", U32, 3)] if key[0] == "split.no" else []
    gguf.read(write(changed(llama, *others)))
    assert refusal(write(changed(llama, *others, key))) == sentence


@pytest.mark.parametrize(("name", "kind"), [("scores", F32), ("token_type", I32)])
def test_a_list_shorter_than_the_vocabulary_is_refused(write: Write, llama: Header, name: str, kind: int) -> None:
    tokens = next(value.elements for key, _, value in llama.keys if key == "tokenizer.ggml.tokens")
    gguf.read(write(changed(llama, (f"tokenizer.ggml.{name}", ARRAY, ArrayOf(kind, [1] * len(tokens))))))
    short = changed(llama, (f"tokenizer.ggml.{name}", ARRAY, ArrayOf(kind, [1] * 3)))
    assert refusal(write(short)) == f'key "tokenizer.ggml.{name}" has 3 elements for {len(tokens)} tokens'


@pytest.mark.parametrize(("count", "length"), [((1 << 20) + 1, 0), (5, 14 << 20)])
def test_a_vocabulary_beyond_all_measure_is_refused(write: Write, count: int, length: int) -> None:
    tokens = Raw(struct.pack("<IQ", STRING, count) + (struct.pack("<Q", length) + bytes(length)) * count)
    sentence = f"has {count} elements of {count * (8 + length)} bytes, more than 1048576 of 67108864"
    assert refusal(write(Header([("tokenizer.ggml.tokens", ARRAY, tokens)]))).endswith(sentence)


@pytest.mark.parametrize("token", ["<0x-1>", "<0x100>", "<0x>", "<0xZZ>", "<0x 1>"])
def test_a_byte_token_of_plamo_2_outside_a_byte_is_refused(write: Write, token: str) -> None:
    def vocabulary(*tokens: str) -> Header:
        return Header(
            [
                ("general.architecture", STRING, "plamo2"),
                ("tokenizer.ggml.model", STRING, "plamo2"),
                ("tokenizer.ggml.tokens", ARRAY, ArrayOf(STRING, tokens)),
            ]
        )

    gguf.read(write(vocabulary("<0x00>", "<0xfF>", "word", "<0")))
    assert refusal(write(vocabulary("<0x00>", token))) == f'key "tokenizer.ggml.tokens" has the byte token "{token}"'


def test_more_experts_used_than_there_are_is_refused(write: Write, llama: Header) -> None:
    experts: Key = ("llama.expert_count", U32, 8)
    gguf.read(write(changed(llama, experts, ("llama.expert_used_count", U32, 8))))
    for used in (0, 9):
        sentence = f'key "llama.expert_used_count" is {used}, of 8 experts'
        assert refusal(write(changed(llama, experts, ("llama.expert_used_count", U32, used)))) == sentence


def test_a_model_without_attention_may_have_no_heads(write: Write) -> None:
    keys = [("general.architecture", STRING, "mamba"), ("mamba.attention.head_count", U32, 0)]
    assert refusal(write(Header(keys))) == 'key "mamba.attention.head_count" is 0'
    assert gguf.read(write(Header([*keys, ("mamba.ssm.conv_kernel", U32, 4)]))).architecture == "mamba"


def test_a_key_without_its_prefix_hides_nothing(write: Write, llama: Header) -> None:
    harmless: Key = ("block_count", U32, 2)
    lying = changed(llama, harmless, ("llama.block_count", U32, 0))
    assert refusal(write(lying)) == 'key "llama.block_count" is 0, not between 1 and 512'


OF_A_PROJECTOR: list[tuple[Key, str]] = [
    (("clip.vision.patch_size", U32, 0), 'key "clip.vision.patch_size" is 0, not between 1 and 4096'),
    (("clip.vision.image_size", U32, 7), 'key "clip.vision.image_size" is 7, less than one patch of 8'),
    (("clip.vision.image_size", U32, 1 << 20), 'key "clip.vision.image_size" is 1048576, not between 1 and 65536'),
    (
        ("clip.vision.image_size", U64, 32),
        'key "clip.vision.image_size" is of type uint64, not uint32',
    ),
    (
        ("clip.vision.attention.head_count", U32, 0),
        'key "clip.vision.attention.head_count" is 0, not between 1 and 65536',
    ),
    (
        ("clip.vision.attention.head_count", U32, 3),
        'key "clip.vision.attention.head_count" is 3, which does not divide 64 elements',
    ),
    (("clip.vision.spatial_merge_size", U32, 0), 'key "clip.vision.spatial_merge_size" is 0'),
    (
        ("clip.vision.image_mean", ARRAY, ArrayOf(F32, [0.5])),
        'key "clip.vision.image_mean" has 1 elements instead of 3',
    ),
    (
        ("clip.vision.image_std", ARRAY, ArrayOf(U8, [1, 1, 1])),
        'key "clip.vision.image_std" is not an array of float32',
    ),
    (
        ("clip.vision.image_grid_pinpoints", ARRAY, ArrayOf(I32, [1, 2, 3])),
        'key "clip.vision.image_grid_pinpoints" has 3 elements, which are not pairs',
    ),
    (("clip.has_vision_encoder", U32, 1), 'key "clip.has_vision_encoder" is of type uint32, not bool'),
    (("clip.projector_type", U32, 1), 'key "clip.projector_type" is of type uint32, not string'),
    (("general.name", U32, 1), 'key "general.name" is of type uint32, not string'),
]


@pytest.mark.parametrize(
    ("key", "sentence"), OF_A_PROJECTOR, ids=[f"{key[0]}={key[2]}"[:60] for key, _ in OF_A_PROJECTOR]
)
def test_a_projector_with_senseless_numbers_is_refused(
    write: Write, projector: Header, key: Key, sentence: str
) -> None:
    assert refusal(write(changed(projector, key))) == sentence


def test_a_projector_may_say_how_wide_its_heads_are_or_that_it_merges_nothing(write: Write, projector: Header) -> None:
    heads: list[Key] = [("clip.vision.attention.head_count", U32, 8), ("clip.vision.attention.head_dim", U32, 8)]
    merging: list[Key] = [("clip.projector_type", STRING, "pixtral"), ("clip.vision.spatial_merge_size", U32, 0)]
    for keys in (heads, merging):
        assert gguf.read(write(changed(projector, *keys))).kind == "projector"
    narrow = [("clip.vision.attention.head_count", U32, 3), ("clip.vision.attention.head_dim", U32, 16)]
    sentence = 'tensor "v.blk.0.attn_q.weight" has the shape [64, 64] instead of 48 rows'
    assert refusal(write(changed(projector, *narrow))) == sentence


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (FakeTensor("w.weight", (32, 32), kind=26), 'tensor "w.weight" has the type I32'),
        (FakeTensor("w.weight", (32, 32), kind=28), 'tensor "w.weight" has the type F64'),
        (FakeTensor("w.weight", (32, 32), kind=9), 'tensor "w.weight" has the type Q8_1'),
        (FakeTensor("w.bias", (32,), kind=8), 'tensor "w.bias" has the type Q8_0'),
    ],
)
def test_weights_of_a_type_without_arithmetic_are_refused(write: Write, tensor: FakeTensor, sentence: str) -> None:
    header = Header([("general.architecture", STRING, "llama")], [tensor], bytes(32 * 32 * 8))
    assert refusal(write(header)) == f"{sentence}, which is not one for such weights"


def test_a_table_of_numbers_may_be_one(write: Write) -> None:
    table = FakeTensor("blk.0.ffn_gate_tid2eid.weight", (32,), kind=26)
    header = Header([("general.architecture", STRING, "deepseek4")], [table], bytes(128))
    assert gguf.read(write(header)).tensors[0].type == "I32"


@pytest.mark.parametrize(("architecture", "least"), [("gemma-embedding", 6), ("llama4", 4)])
def test_too_few_layers_for_one_of_each_kind_are_refused(
    write: Write, llama: Header, architecture: str, least: int
) -> None:
    keys = [(str(name).replace("llama.", f"{architecture}."), kind, value) for name, kind, value in llama.keys]
    found = changed(dataclasses.replace(llama, keys=keys), ("general.architecture", STRING, architecture))
    assert f"is 2, and the engine needs {least} layers at least" in refusal(write(found))
