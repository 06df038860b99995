"""What a GGUF file says of its model: names, numbers, capabilities, and the reply of `/api/show`."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral import gguf
from corral.errors import ModelFileError
from tests.gguf_bytes import ARRAY, BOOL, F32, I32, STRING, U8, U32, ArrayOf, FakeTensor, Header, Raw
from tests.tiny_models import CHATML, tiny_bert, tiny_llama, tiny_llava

Key = tuple[str, int, Any]
Make = Callable[..., gguf.GGUF]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes and reads a file of an architecture with these further keys."""

    def make_file(architecture: str, *keys: Key, tensors: list[FakeTensor] | None = None) -> gguf.GGUF:
        path = tmp_path / "file.gguf"
        header = Header([("general.architecture", STRING, architecture), *keys], tensors or [], bytes(4096))
        path.write_bytes(header.encode())
        return gguf.read(path)

    return make_file


def test_a_tiny_model_describes_itself(tmp_path: Path) -> None:
    file = gguf.read(tiny_llama(tmp_path / "tiny.gguf", chat_template=CHATML, context_length=1024))
    assert file.architecture == "llama"
    assert (file.kind, file.split, file.file_type, file.capabilities) == ("model", None, "F16", ("completion",))
    assert (file.block_count, file.context_length, file.embedding_length) == (2, 1024, 64)
    assert (file.bos_token_id, file.eos_token_id, file.add_bos) == (0, 2, False)
    assert file.chat_template == CHATML
    assert file.vocabulary_size == len(file.values("tokenizer.ggml.tokens"))
    assert file.parameter_count == sum(tensor.elements for tensor in file.tensors) > 100_000
    assert file.weights_bytes == sum(tensor.size for tensor in file.tensors)
    assert file.kv_bytes_per_token() == 2 * 1 * (32 + 32) * 2


def test_show_tells_all_keys_but_the_long_ones(make: Make) -> None:
    file = make(
        "llama",
        ("general.name", STRING, "Name"),
        ("tokenizer.chat_template", STRING, "{{ x }}"),
        ("general.parameter_count", U32, 7),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("other.infinite", F32, float("inf")),
        ("general.languages", ARRAY, ArrayOf(STRING, ["en", "de"])),
        ("general.tags", ARRAY, ArrayOf(STRING, [])),
        ("other.floats", ARRAY, ArrayOf(F32, [0.1, float("nan")])),
        ("other.nested", ARRAY, ArrayOf(ARRAY, [ArrayOf(U32, [1])])),
        tensors=[FakeTensor("w", (4, 5))],
    )
    short = {
        "general.architecture": "llama",
        "general.parameter_count": 20,
        "llama.attention.layer_norm_rms_epsilon": 1e-05,
        "other.infinite": None,
        "general.languages": None,
        "general.tags": [],
        "other.floats": None,
        "other.nested": None,
    }
    long = {"general.languages": ["en", "de"], "other.floats": [0.1, None], "other.nested": [[1]]}
    assert file.model_info(verbose=False) == short
    assert file.model_info(verbose=True) == {**short, **long}


def test_show_of_the_real_model_is_what_ollama_says(starter_gguf: Path) -> None:
    assert gguf.read(starter_gguf).model_info(verbose=False) == {
        "general.architecture": "llama",
        "general.basename": "smollm2",
        "general.file_type": 3,
        "general.finetune": "8k-lc100k-mix1-ep2",
        "general.languages": None,
        "general.license": "apache-2.0",
        "general.organization": "HuggingFaceTB",
        "general.parameter_count": 134515008,
        "general.quantization_version": 2,
        "general.size_label": "135M",
        "general.type": "model",
        "llama.attention.head_count": 9,
        "llama.attention.head_count_kv": 3,
        "llama.attention.layer_norm_rms_epsilon": 1e-05,
        "llama.block_count": 30,
        "llama.context_length": 8192,
        "llama.embedding_length": 576,
        "llama.feed_forward_length": 1536,
        "llama.rope.dimension_count": 64,
        "llama.rope.freq_base": 100000,
        "llama.vocab_size": 49152,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.token_type": None,
        "tokenizer.ggml.tokens": None,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def test_keys_are_found_under_the_architecture(make: Make) -> None:
    file = make("qwen2", ("qwen2.block_count", U32, 3), ("block_count", U32, 9), ("split.count", U32, 1))
    assert (file.get("block_count"), file.get("split.count"), file.get("general.architecture")) == (3, 1, "qwen2")
    assert file.get("context_length") is None
    assert file.get("qwen2.block_count") == 3


def test_a_value_of_another_type_counts_as_absent(make: Make) -> None:
    number: Key = ("tokenizer.ggml.add_bos_token", U32, 1)
    file = make("llama", ("general.file_type", STRING, "x"), number, ("x", BOOL, True))
    assert (file.file_type, file.add_bos) == ("unknown", None)
    assert (file.integer("x"), file.text("x"), file.flag("x"), file.flag("none")) == (None, None, True, False)
    with pytest.raises(ModelFileError, match='key "x" is not an array'):
        file.values("x")


FILE_TYPES = (
    "0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 7 Q8_0, 8 Q5_0, 9 Q5_1, 10 Q2_K, 11 Q3_K_S, 12 Q3_K_M, 13 Q3_K_L, 14 Q4_K_S, "
    "15 Q4_K_M, 16 Q5_K_S, 17 Q5_K_M, 18 Q6_K, 19 IQ2_XXS, 20 IQ2_XS, 21 Q2_K_S, 22 IQ3_XS, 23 IQ3_XXS, 24 IQ1_S, "
    "25 IQ4_NL, 26 IQ3_S, 27 IQ3_M, 28 IQ2_S, 29 IQ2_M, 30 IQ4_XS, 31 IQ1_M, 32 BF16, 36 TQ1_0, 37 TQ2_0, "
    "38 MXFP4_MOE, 39 NVFP4, 40 Q1_0, 4 unknown, 33 unknown, 1024 unknown"
)


@pytest.mark.parametrize("line", FILE_TYPES.split(", "))
def test_file_types_have_names(make: Make, line: str) -> None:
    number, name = line.split()
    assert make("llama", ("general.file_type", U32, int(number))).file_type == name


@pytest.mark.parametrize(
    ("architecture", "keys", "kind", "capabilities"),
    [
        ("llama", [("llama.block_count", U32, 2)], "model", ("completion",)),
        ("llama", [("general.type", STRING, "model")], "model", ("completion",)),
        ("llama", [("general.type", STRING, "adapter")], "adapter", ("completion",)),
        ("clip", [("general.type", STRING, "mmproj")], "projector", ("vision",)),
        ("clip", [("general.type", STRING, "projector")], "projector", ("vision",)),
        ("clip", [("clip.has_vision_encoder", BOOL, True)], "projector", ("vision",)),
        ("clip", [("clip.has_audio_encoder", BOOL, True)], "projector", ("vision", "audio")),
        ("clip", [("clip.has_vision_encoder", BOOL, False)], "model", ("completion",)),
        (
            "clip",
            [
                ("general.type", STRING, "mmproj"),
                ("clip.has_audio_encoder", BOOL, True),
                ("clip.projector_type", STRING, "gemma3nv"),
            ],
            "projector",
            ("vision",),
        ),
        ("mllama", [("mllama.vision.block_count", U32, 2)], "projector", ("vision",)),
        ("bert", [("bert.pooling_type", U32, 1)], "model", ("embedding",)),
        (
            "gemma3",
            [("gemma3.block_count", U32, 2), ("gemma3.vision.block_count", U32, 2)],
            "model",
            ("completion", "vision"),
        ),
        (
            "gemma4",
            [("gemma4.block_count", U32, 2), ("gemma4.audio.block_count", U32, 2)],
            "model",
            ("completion", "audio"),
        ),
        (
            "nemotron_h_omni",
            [("nemotron_h_omni.block_count", U32, 2), ("nemotron_h_omni.audio.block_count", U32, 2)],
            "model",
            ("completion",),
        ),
    ],
)
def test_kind_and_capabilities_follow_from_the_keys(
    make: Make, architecture: str, keys: list[Key], kind: str, capabilities: tuple[str, ...]
) -> None:
    file = make(architecture, *keys)
    assert (file.kind, file.capabilities) == (kind, capabilities)


def test_a_projector_and_an_embedding_model_are_recognised(tmp_path: Path) -> None:
    tiny_llava(tmp_path / "model.gguf", tmp_path / "projector.gguf")
    assert gguf.read(tmp_path / "projector.gguf").kind == "projector"
    assert gguf.read(tmp_path / "model.gguf").kind == "model"
    bert = gguf.read(tiny_bert(tmp_path / "bert.gguf"))
    assert (bert.capabilities, bert.kv_bytes_per_token(), bert.file_type) == (("embedding",), 0, "F32")


@pytest.mark.parametrize(
    ("keys", "split"),
    [
        ([], None),
        ([("split.count", U32, 1), ("split.no", U32, 0)], None),
        ([("split.count", U32, 3), ("split.no", U32, 2)], (2, 3)),
        ([("split.count", U32, 3)], (0, 3)),
    ],
)
def test_a_part_of_a_split_model_knows_its_place(make: Make, keys: list[Key], split: tuple[int, int] | None) -> None:
    assert make("llama", *keys).split == split


ATTENTION: list[Key] = [
    ("llama.block_count", U32, 4),
    ("llama.embedding_length", U32, 64),
    ("llama.attention.head_count", U32, 4),
]


@pytest.mark.parametrize(
    ("keys", "elements"),
    [
        ([], 4 * 4 * (16 + 16)),
        ([("llama.attention.head_count_kv", U32, 2)], 4 * 2 * (16 + 16)),
        ([("llama.attention.head_count_kv", ARRAY, ArrayOf(I32, [1, 0, 2, 0]))], 3 * (16 + 16)),
        ([("llama.attention.head_count_kv", ARRAY, ArrayOf(I32, [1, 2]))], (1 + 2 + 2 + 2) * (16 + 16)),
        ([("llama.attention.key_length", U32, 24), ("llama.attention.value_length", U32, 8)], 4 * 4 * (24 + 8)),
        ([("llama.attention.shared_kv_layers", U32, 3)], 1 * 4 * (16 + 16)),
        ([("llama.full_attention_interval", U32, 2)], 2 * 4 * (16 + 16)),
        ([("llama.attention.causal", BOOL, False)], 0),
    ],
)
def test_the_cache_of_a_token_is_the_sum_over_the_layers(make: Make, keys: list[Key], elements: int) -> None:
    file = make("llama", *ATTENTION, *keys)
    assert file.kv_bytes_per_token() == 2 * elements
    assert file.kv_bytes_per_token(34 / 32) == -(-elements * 34 // 32)


def test_a_file_that_says_nothing_needs_no_cache(make: Make) -> None:
    assert make("llama").kv_bytes_per_token() == 0


def test_token_ids_outside_the_vocabulary_are_none(make: Make) -> None:
    tokens = ("tokenizer.ggml.tokens", ARRAY, ArrayOf(STRING, ["a", "b"]))
    file = make("llama", tokens, ("tokenizer.ggml.bos_token_id", U32, 1), ("tokenizer.ggml.eos_token_id", U32, 2))
    assert (file.bos_token_id, file.eos_token_id) == (1, None)


def test_arrays_too_long_to_show_are_left_out(make: Make) -> None:
    length = (8 << 20) + 1
    file = make("llama", ("long", ARRAY, Raw(struct.pack("<IQ", U8, length) + bytes(length))))
    assert file.model_info(verbose=True)["long"] is None
    with pytest.raises(ModelFileError, match=f'array "long" of {length} elements is too long to be shown'):
        file.values("long")
