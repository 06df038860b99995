"""The type of each tensor, against the files that llama.cpp makes of well-known models."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from msgspec import Struct
from msgspec.structs import replace

from corral import gguf
from corral.errors import BadRequest
from corral.gguf import GGUF, Tensor, writer
from corral.quantize import KINDS, kind_named
from corral.quantize.choice import choose


class Shape(Struct, frozen=True):
    """A model's numbers, as its configuration has them."""

    architecture: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    values: int
    head_width: int = 128
    vocabulary: int = 32000
    experts: int = 0
    tied: bool = False


LLAMA_2_7B = Shape("llama", 32, 4096, 11008, 32, 32)
LLAMA_3_8B = Shape("llama", 32, 4096, 14336, 32, 8, vocabulary=128256)
LLAMA_3_70B = Shape("llama", 80, 8192, 28672, 64, 8, vocabulary=128256)
MIXTRAL = Shape("llama", 32, 4096, 14336, 32, 8, experts=8)
GEMMA_3_4B = Shape("gemma3", 34, 2560, 10240, 8, 4, head_width=256, vocabulary=262144, tied=True)
QWEN_2_500M = Shape("qwen2", 24, 896, 4864, 14, 2, head_width=64, vocabulary=151936, tied=True)
FALCON_40B = Shape("falcon", 60, 8192, 32768, 128, 8, head_width=64, vocabulary=65024)


def model(shape: Shape) -> GGUF:
    """The model's metadata and list of tensors, in F16."""
    tensors = [
        floats("token_embd.weight", shape.width, shape.vocabulary),
        writer.new_tensor("output_norm.weight", "F32", (shape.width,)),
    ]
    if not shape.tied:
        tensors.append(floats("output.weight", shape.width, shape.vocabulary))
    for layer in reversed(range(shape.layers)):  # the order in the file does not count
        tensors += [replace(tensor, name=f"blk.{layer}.{tensor.name}.weight") for tensor in block(shape)]
    return described(
        tensors,
        {
            "general.architecture": shape.architecture,
            f"{shape.architecture}.block_count": shape.layers,
            f"{shape.architecture}.attention.head_count": shape.heads,
            f"{shape.architecture}.attention.head_count_kv": shape.values,
            f"{shape.architecture}.expert_count": shape.experts,
        },
    )


def block(shape: Shape) -> list[Tensor]:
    wide, narrow = shape.heads * shape.head_width, shape.values * shape.head_width
    if shape.architecture == "falcon":
        attention = [floats("attn_qkv", shape.width, wide + 2 * narrow)]
    else:
        attention = [
            floats("attn_q", shape.width, wide),
            floats("attn_k", shape.width, narrow),
            floats("attn_v", shape.width, narrow),
        ]
    attention += [floats("attn_output", wide, shape.width), writer.new_tensor("attn_norm", "F32", (shape.width,))]
    if shape.experts:
        count = shape.experts
        return [
            *attention,
            floats("ffn_gate_inp", shape.width, count),
            floats("ffn_gate_exps", shape.width, shape.feed_forward, count),
            floats("ffn_up_exps", shape.width, shape.feed_forward, count),
            floats("ffn_down_exps", shape.feed_forward, shape.width, count),
        ]
    gate = [] if shape.architecture == "falcon" else [floats("ffn_gate", shape.width, shape.feed_forward)]
    return [
        *attention,
        *gate,
        floats("ffn_up", shape.width, shape.feed_forward),
        floats("ffn_down", shape.feed_forward, shape.width),
    ]


def floats(name: str, *shape: int) -> Tensor:
    return writer.new_tensor(name, "F16", shape)


def described(tensors: list[Tensor], metadata: Mapping[str, int | str]) -> GGUF:
    return GGUF(
        path=Path("model.gguf"),
        size=0,
        version=3,
        big_endian=False,
        alignment=32,
        data_offset=0,
        metadata=metadata,
        types=MappingProxyType({}),
        tensors=tuple(tensors),
    )


COUNTS: list[tuple[Shape, str, dict[str, int]]] = [
    (LLAMA_2_7B, "Q2_K", {"Q2_K": 129, "Q3_K": 96, "Q6_K": 1}),
    (LLAMA_2_7B, "Q3_K_S", {"Q3_K": 225, "Q6_K": 1}),
    (LLAMA_2_7B, "Q3_K_M", {"Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
    (LLAMA_2_7B, "Q3_K_L", {"Q3_K": 129, "Q5_K": 96, "Q6_K": 1}),
    (LLAMA_2_7B, "Q4_0", {"Q4_0": 225, "Q6_K": 1}),
    (LLAMA_2_7B, "Q4_1", {"Q4_1": 225, "Q6_K": 1}),
    (LLAMA_2_7B, "Q5_0", {"Q5_0": 225, "Q6_K": 1}),
    (LLAMA_2_7B, "Q5_K_S", {"Q5_K": 225, "Q6_K": 1}),
    (LLAMA_2_7B, "Q5_K_M", {"Q5_K": 193, "Q6_K": 33}),
    (LLAMA_2_7B, "IQ4_XS", {"IQ4_XS": 221, "Q5_K": 4, "Q6_K": 1}),
    (LLAMA_3_8B, "Q2_K", {"Q2_K": 129, "Q3_K": 64, "Q4_K": 32, "Q6_K": 1}),
    (LLAMA_3_8B, "Q4_K_S", {"Q4_K": 217, "Q5_K": 8, "Q6_K": 1}),
    (LLAMA_3_8B, "Q4_K_M", {"Q4_K": 193, "Q6_K": 33}),
    (LLAMA_3_8B, "Q6_K", {"Q6_K": 226}),
    (LLAMA_3_8B, "Q8_0", {"Q8_0": 226}),
    (LLAMA_3_8B, "IQ4_XS", {"IQ4_XS": 189, "Q5_K": 36, "Q6_K": 1}),
    (LLAMA_3_8B, "IQ4_NL", {"IQ4_NL": 189, "Q5_K": 36, "Q6_K": 1}),
    (LLAMA_3_8B, "BF16", {"BF16": 226}),
    (LLAMA_3_70B, "Q2_K", {"Q2_K": 321, "Q3_K": 160, "Q5_K": 80, "Q6_K": 1}),
    (LLAMA_3_70B, "Q3_K_S", {"Q3_K": 481, "Q5_K": 80, "Q6_K": 1}),
    (LLAMA_3_70B, "Q3_K_M", {"Q3_K": 321, "Q4_K": 155, "Q5_K": 85, "Q6_K": 1}),
    (LLAMA_3_70B, "Q4_K_M", {"Q4_K": 441, "Q5_K": 40, "Q6_K": 81}),
    (MIXTRAL, "Q4_K_M", {"Q4_K": 113, "Q5_K": 32, "Q6_K": 17, "Q8_0": 64}),
    (MIXTRAL, "Q3_K_L", {"Q3_K": 129, "Q5_K": 32, "Q6_K": 1, "Q8_0": 64}),
    (GEMMA_3_4B, "Q4_K_M", {"Q4_K": 204, "Q6_K": 35}),
    (GEMMA_3_4B, "Q4_K_S", {"Q4_K": 230, "Q5_K": 8, "Q6_K": 1}),
    (GEMMA_3_4B, "Q2_K", {"Q2_K": 136, "Q3_K": 102, "Q6_K": 1}),
    (GEMMA_3_4B, "Q5_0", {"Q5_0": 238, "Q6_K": 1}),
    (QWEN_2_500M, "Q4_K_M", {"Q4_K": 12, "Q5_0": 132, "Q6_K": 12, "Q8_0": 13}),
    (FALCON_40B, "Q3_K_M", {"Q3_K": 151, "Q4_K": 85, "Q5_K": 5, "Q8_0": 1}),
]
"""How many tensors of each type there are, without those that stay."""


@pytest.mark.parametrize(("shape", "kind", "expected"), COUNTS)
def test_the_mix_of_types_is_llama_cpps(shape: Shape, kind: str, expected: dict[str, int]) -> None:
    file = model(shape)
    kept = {tensor.name for tensor in file.tensors if "norm" in tensor.name or "ffn_gate_inp" in tensor.name}
    chosen = choose(file, kind, has_imatrix=False)
    assert Counter(type_ for name, type_ in chosen.items() if name not in kept) == expected
    assert {chosen[name] for name in kept} <= {"F32", "F16"}


def layers(chosen: dict[str, str], role: str, type_: str) -> list[int]:
    return [int(name.split(".")[1]) for name, one in chosen.items() if f".{role}.weight" in name and one == type_]


def test_the_layers_with_more_bits_are_llama_cpps() -> None:
    chosen = choose(model(LLAMA_3_8B), "Q4_K_M", has_imatrix=False)
    sensitive = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert layers(chosen, "attn_v", "Q6_K") == sensitive
    assert layers(chosen, "ffn_down", "Q6_K") == sensitive
    small = choose(model(LLAMA_3_8B), "Q4_K_S", has_imatrix=False)
    assert layers(small, "attn_v", "Q5_K") == layers(small, "ffn_down", "Q5_K") == [0, 1, 2, 3]
    large = choose(model(LLAMA_3_70B), "Q3_K_M", has_imatrix=False)
    assert layers(large, "ffn_down", "Q5_K") == [0, 1, 2, 3, 4]
    assert layers(large, "attn_output", "Q4_K") == layers(large, "attn_v", "Q5_K") == list(range(80))


def test_layers_of_several_kinds_are_counted_together() -> None:
    """As in Qwen3.5-27B, whose every fourth layer has attention, and the others something like it."""
    numbers: dict[str, int | str] = {"general.architecture": "qwen35", "qwen35.block_count": 64}
    numbers |= {"qwen35.attention.head_count": 24, "qwen35.attention.head_count_kv": 4}
    tensors = [floats("output.weight", 5120, 248320)]
    for layer in range(64):
        roles = ("attn_q", "attn_k", "attn_v", "attn_output") if layer % 4 == 3 else ("attn_qkv", "ssm_out")
        tensors += [floats(f"blk.{layer}.{role}.weight", 5120, 1024) for role in roles]
        tensors.append(floats(f"blk.{layer}.ffn_down.weight", 17408, 5120))
    file = described(tensors, numbers)
    sensitive = [*range(8), *range(10, 56, 3), *range(56, 64)]
    for kind, more, attention, down in (
        ("Q3_K_M", "Q5_K", range(2), range(4)),
        ("Q4_K_S", "Q5_K", range(4), range(8)),
        ("Q4_K_M", "Q6_K", sensitive, sensitive),
        ("Q5_K_M", "Q6_K", sensitive, sensitive),
    ):
        chosen = choose(file, kind, has_imatrix=False)
        raised = {role: layers(chosen, role, more) for role in ("attn_qkv", "attn_v", "ffn_down", "ssm_out")}
        assert sorted(raised["attn_qkv"] + raised["attn_v"]) == list(attention)
        assert (raised["ffn_down"], raised["ssm_out"]) == (list(down), [])


def test_shared_and_other_experts_of_a_layer_get_the_same() -> None:
    """As in Qwen3-Coder-Next."""
    numbers: dict[str, int | str] = {"general.architecture": "qwen3next", "qwen3next.block_count": 48}
    numbers |= {"qwen3next.expert_count": 512}
    roles = ("ffn_down_exps", "ffn_down_shexp")
    file = described(
        [floats(f"blk.{layer}.{role}.weight", 512, 2048) for role in roles for layer in range(48)], numbers
    )
    for kind, raised in (("Q3_K_M", range(3)), ("Q4_K_S", range(6))):
        for role in roles:
            assert layers(choose(file, kind, has_imatrix=False), role, "Q5_K") == list(raised)


def test_an_importance_matrix_changes_the_mix() -> None:
    known = choose(model(LLAMA_3_8B), "IQ4_XS", has_imatrix=True)
    assert Counter(known.values()) == {"IQ4_XS": 193, "Q5_K": 32, "Q6_K": 1, "F32": 33}
    assert layers(choose(model(LLAMA_3_8B), "Q4_0", has_imatrix=True), "ffn_down", "Q4_1") == [0, 1, 2, 3]
    assert layers(choose(model(LLAMA_3_8B), "Q5_0", has_imatrix=True), "ffn_down", "Q5_1") == [0, 1, 2, 3]


def test_the_starter_model_is_what_llama_cpp_made_of_it(starter_gguf: Path) -> None:
    """Rows of 576 cannot be divided into blocks of 256."""
    made = gguf.read(starter_gguf)
    before = replace(made, tensors=tuple(floated(tensor) for tensor in made.tensors))
    assert choose(before, made.file_type, has_imatrix=False) == {tensor.name: tensor.type for tensor in made.tensors}


def floated(tensor: Tensor) -> Tensor:
    return replace(tensor, type="F32" if len(tensor.shape) == 1 else "F16")


FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_fit_get_another_type(kind: str) -> None:
    names = {"blk.0.attn_q.weight": 512, "blk.1.attn_q.weight": 96, "blk.2.attn_q.weight": 40}
    file = described(
        [floats(name, row, 64) for name, row in names.items()],
        {"general.architecture": "llama", "llama.block_count": 3},
    )
    usual = KINDS[kind]
    even, odd, odder = choose(file, kind, has_imatrix=False).values()
    assert (even, odd) == (usual, FALLBACKS.get(usual, usual))
    assert odder == (usual if usual in ("F32", "F16", "BF16") else "F16")


STAYING = {
    "blk.0.attn_norm.weight": (512, 2),
    "blk.0.attn_q.bias": (512, 2),
    "blk.0.one_row.weight": (512, 1),
    "blk.0.ffn_gate_inp.weight": (512, 8),
    "blk.0.ssm_conv1d.weight": (512, 4),
    "blk.0.shortconv.conv.weight": (512, 4),
    "blk.0.time_mix_w1.weight": (512, 32),
    "blk.0.time_mix_lerp_fused.weight": (512, 5),
    "blk.0.attn_rel_b.weight": (512, 32),
    "blk.0.indexer.k_proj.weight": (512, 32),
    "altup_proj.weight": (512, 4),
    "per_layer_model_proj.weight": (512, 4),
    "position_embd.weight": (512, 512),
    "token_types.weight": (512, 2),
    "v.blk.0.attn_v.weight": (512, 512),
    "a.blk.0.ffn_up.weight": (512, 512),
    "mm.0.weight": (512, 512),
    "s.blk.0.ffn_up.weight": (512, 512),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_small_or_steers_others_stays(kind: str) -> None:
    tensors = [writer.new_tensor(name, "BF16", shape) for name, shape in STAYING.items()]
    kept = writer.new_tensor("blk.0.ffn_down_exps.weight", "MXFP4", (512, 64, 4))
    file = described([*tensors, kept], {"general.architecture": "llama", "llama.block_count": 1})
    assert choose(file, kind, has_imatrix=False) == {**dict.fromkeys(STAYING, "BF16"), kept.name: "MXFP4"}


def test_pictures_and_sounds_are_not_counted_among_the_layers() -> None:
    plain = model(LLAMA_3_8B)
    eyes = [floats(f"v.blk.{layer}.attn_v.weight", 1024, 1024) for layer in range(24)]
    seeing = replace(plain, tensors=(*eyes, *plain.tensors))
    chosen = choose(seeing, "Q4_K_M", has_imatrix=False)
    assert {chosen.pop(tensor.name) for tensor in eyes} == {"F16"}
    assert chosen == choose(plain, "Q4_K_M", has_imatrix=False)


PINS = [
    ("qwen35", "blk.24.nextn.eh_proj.weight", "Q8_0"),
    ("qwen35moe", "blk.40.nextn.eh_proj.weight", "Q8_0"),
    ("gemma3n", "per_layer_token_embd.weight", "F16"),
    ("deepseek2", "blk.3.attn_k_b.weight", "Q8_0"),
    ("deepseek2", "blk.3.attn_q_a.weight", "Q8_0"),
    ("deepseek2", "blk.3.attn_q_b.weight", "Q8_0"),
    ("deepseek2", "blk.3.attn_v_b.weight", "Q8_0"),
    ("deepseek2", "blk.3.attn_kv_a_mqa.weight", "Q8_0"),
    ("glm4", "token_embd.weight", "F16"),
    ("glm4", "output.weight", "F16"),
    ("glmocr", "output.weight", "F16"),
]


@pytest.mark.parametrize(("architecture", "name", "pinned"), PINS)
def test_some_tensors_of_some_architectures_are_pinned(architecture: str, name: str, pinned: str) -> None:
    others = [writer.new_tensor("blk.0.attn_q.weight", "BF16", (512, 512)), floats("output.weight", 512, 512)]
    tensors = [writer.new_tensor(name, "BF16", (512, 512)), *(other for other in others if other.name != name)]
    file = described(tensors, {"general.architecture": architecture, f"{architecture}.block_count": 48})
    for kind, expected in (("Q4_K_S", pinned), ("Q4_K_M", pinned), ("Q3_K_S", None)):
        chosen = choose(file, kind, has_imatrix=False)
        assert chosen["blk.0.attn_q.weight"] == KINDS[kind]
        assert chosen[name] == expected or (expected is None and chosen[name] in ("Q3_K", "Q6_K"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_numbers_of_its_own_is_no_crash(kind: str) -> None:
    names = ("attn_v", "attn_output", "ffn_down", "ffn_down_exps", "attn_k")
    tensors = [floats(f"{prefix}{name}.weight", 256, 64) for prefix in ("", "blk.900.") for name in names]
    assert len(choose(described(tensors, {}), kind, has_imatrix=False)) == len(tensors)
    experts: dict[str, int | str] = {"general.architecture": "wonder", "wonder.expert_count": 8}
    assert len(choose(described(tensors, experts), kind, has_imatrix=True)) == len(tensors)


def test_names_of_kinds() -> None:
    assert [kind_named(text) for text in ("q4_k_m", "Q4_K", "q5_k", "Q3_K", "f16", "iq4_xs")] == [
        *("Q4_K_M", "Q4_K_M", "Q5_K_M", "Q3_K_M", "F16", "IQ4_XS")
    ]
    assert set(KINDS) <= set(gguf.FILE_TYPES.values())
    with pytest.raises(
        BadRequest, match=r"^unsupported quantization type iq1_s - supported types are F32, F16, BF16, Q8_0"
    ):
        kind_named("iq1_s")


GPT_OSS_20B = Shape("gpt-oss", 24, 2880, 2880, 64, 8, head_width=64, vocabulary=201088, experts=32)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K_M", "Q3_K_L", "Q4_K_M", "Q8_0"])
def test_gpt_oss_gets_the_same_types_in_either_layout(kind: str) -> None:
    """`attn_out` is what llama.cpp calls `attn_output`, under the architecture's published name."""
    file = model(GPT_OSS_20B)
    published = replace(
        file,
        metadata={
            key.replace("gpt-oss", "gptoss"): value.replace("gpt-oss", "gptoss") if isinstance(value, str) else value
            for key, value in file.metadata.items()
        },
        tensors=tuple(replace(tensor, name=tensor.name.replace("attn_output", "attn_out")) for tensor in file.tensors),
    )
    chosen = choose(file, kind, has_imatrix=False)
    renamed = {
        name.replace("attn_out.", "attn_output."): type_
        for name, type_ in choose(published, kind, has_imatrix=False).items()
    }
    assert renamed == chosen
    raised = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "Q4_K_M": "Q4_K", "Q8_0": "Q8_0"}
    assert chosen["blk.0.attn_output.weight"] == raised[kind]
