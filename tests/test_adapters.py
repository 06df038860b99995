"""Adapters that are refused, by name: those that do more than LoRA, and those that are for another model."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from corral import gguf
from corral.convert import convert
from corral.convert.adapters import convert_adapter
from corral.errors import BadRequest, ModelFileError
from corral.gguf import GGUF, lora
from corral.messages import Progress
from tests import safetensors_bytes
from tests.lora_models import halves, matrices, write_mlx, write_peft
from tests.reference.models import CASES
from tests.tiny_models import tiny_bert, tiny_llama, tiny_lora

CASE = next(case for case in CASES if case.name == "llama")
PAIRS = halves(CASE, matrices(CASE)[:3], {})
Q = "model.layers.0.self_attn.q_proj"
FIRST = next(iter(PAIRS))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    convert(CASE.write(folder / "checkpoint"), folder / "base.gguf", report=lambda step: None)
    return folder / "base.gguf"


def refusal(files: Mapping[str, Path], base: Path, target: Path) -> str:
    with pytest.raises(ModelFileError) as raised:
        convert_adapter(files, base, target, report=lambda step: None)
    return str(raised.value)


def test_the_file_has_the_keys_and_tensors_of_an_adapter(tmp_path: Path, base: Path) -> None:
    steps: list[Progress] = []
    target = tmp_path / "adapter.gguf"
    written = convert_adapter(write_peft(tmp_path / "peft", PAIRS, dtype="F16"), base, target, report=steps.append)
    file = gguf.read(target)
    assert dict(file.metadata) == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    assert file.kind == "adapter"
    assert [(tensor.name, tensor.type, tensor.shape) for tensor in file.tensors] == [
        ("blk.0.attn_k.weight.lora_a", "F16", (64, 4)),
        ("blk.0.attn_k.weight.lora_b", "F16", (4, 64)),
        ("blk.0.attn_output.weight.lora_a", "F16", (64, 4)),
        ("blk.0.attn_output.weight.lora_b", "F16", (4, 64)),
        ("blk.0.attn_q.weight.lora_a", "F16", (64, 4)),
        ("blk.0.attn_q.weight.lora_b", "F16", (4, 64)),
    ]
    assert written.size == target.stat().st_size
    assert {(step.status, step.total) for step in steps} == {("converting adapter", written.size)}


def test_queries_are_put_in_the_order_of_the_model(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "adapter.gguf"
    convert_adapter(write_peft(tmp_path / "peft", PAIRS, dtype="BF16"), base, target, report=lambda step: None)
    found = {tensor.name: tensor.data for tensor in GGUFReader(target).tensors}
    down, up = (
        (half.view("<u4") & 0xFFFF0000).astype("<u4").view("<f4") for half in PAIRS[Q]
    )  # bfloat16 is their upper half
    head, half = 16, 8
    order = [start + place // 2 + place % 2 * half for start in range(0, 64, head) for place in range(head)]
    assert np.array_equal(found["blk.0.attn_q.weight.lora_a"], down)
    assert np.array_equal(found["blk.0.attn_q.weight.lora_b"], up[order])
    output = PAIRS["model.layers.0.self_attn.o_proj"][1]
    assert np.allclose(found["blk.0.attn_output.weight.lora_b"], output, rtol=0.01)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "LOHA"}, 'adapters of type "LOHA" are not supported'),
        ({"peft_type": 1}, 'adapter_config.json: "peft_type" is not a text: 1'),
        ({"use_dora": True}, 'adapter_config.json: "use_dora" is not supported by the engine: True'),
        ({"bias": "all"}, "adapter_config.json: \"bias\" is not supported by the engine: 'all'"),
        ({"lora_bias": True}, 'adapter_config.json: "lora_bias" is not supported by the engine: True'),
        (
            {"modules_to_save": ["lm_head"]},
            "adapter_config.json: \"modules_to_save\" is not supported by the engine: ['lm_head']",
        ),
        ({"init_lora_weights": "pissa_niter_4"}, 'adapter_config.json: "init_lora_weights" is not supported'),
        ({"layer_replication": [[0, 1]]}, 'adapter_config.json: "layer_replication" is not supported'),
        ({"trainable_token_indices": [5]}, 'adapter_config.json: "trainable_token_indices" is not supported'),
        ({"target_parameters": ["x"]}, 'adapter_config.json: "target_parameters" is not supported'),
        ({"r": 0}, 'adapter_config.json: "r" is 0, not between 1 and 65536'),
        ({"r": 8}, f'tensor "base_model.model.{FIRST}.lora_B.weight" has the rank 4, by "adapter_config.json" 8'),
        (
            {"r": 8, "rank_pattern": {"k_proj": 4}},
            f'tensor "base_model.model.{FIRST}.lora_B.weight" has the rank 4, by',
        ),
        ({"lora_alpha": 0}, 'adapter_config.json: "lora_alpha" is 0, not above 0 and up to 1e+09'),
        ({"lora_alpha": float("nan")}, 'adapter_config.json: "lora_alpha" is nan, not above 0'),
        ({"lora_alpha": "x"}, "adapter_config.json: \"lora_alpha\" is not a number: 'x'"),
        (
            {"alpha_pattern": {"(a+)+$": 1}},
            'adapter_config.json: "alpha_pattern" has the pattern "(a+)+$", which is not the end of a name',
        ),
        ({"alpha_pattern": {"q_proj": -1}}, 'adapter_config.json: "alpha_pattern": "q_proj" is -1, not above 0'),
    ],
)
def test_what_is_more_than_lora_is_refused(tmp_path: Path, base: Path, config: dict[str, Any], sentence: str) -> None:
    files = write_peft(tmp_path / "peft", PAIRS, **config)
    assert refusal(files, base, tmp_path / "adapter.gguf").startswith(sentence)


A, B = f"base_model.model.{Q}.lora_A.weight", f"base_model.model.{Q}.lora_B.weight"
GOOD = {A: np.ones((4, 64), np.float32), B: np.ones((64, 4), np.float32)}
NONE = np.zeros((0, 64), np.float32)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({}, "the adapter has no tensors"),
        ({A: GOOD[A]}, f'the adapter has only one of two tensors for "{Q}"'),
        (
            {**GOOD, "base_model.model.lm_head.weight": GOOD[A]},
            'tensor "base_model.model.lm_head.weight" is no part of a LoRA, so it cannot be converted',
        ),
        (
            {**GOOD, f"base_model.model.{Q}.lora_magnitude_vector": GOOD[A][0]},
            f'tensor "base_model.model.{Q}.lora_magnitude_vector" is no part of a LoRA',
        ),
        ({**GOOD, f"{Q}.lora_A.weight": GOOD[A]}, f'tensor "{Q}.lora_A.weight" is there twice'),
        ({**GOOD, A: GOOD[A][0]}, f'tensor "{A}" is no matrix of plain floats, but [64] in F32'),
        ({**GOOD, A: NONE}, f'tensor "{A}" is no matrix of plain floats, but [0, 64] in F32'),
        (
            {**GOOD, A: np.ones((4, 32), np.float32)},
            'the adapter\'s tensors for "blk.0.attn_q.weight" have the shapes [32, 4] and [4, 64], which do not fit',
        ),
        ({**GOOD, A: GOOD[A] * np.float32("nan")}, f'tensor "{A}" has numbers that are infinite or NaN'),
        (
            {"base_model.model.vision.lora_A.weight": GOOD[A], "base_model.model.vision.lora_B.weight": GOOD[B]},
            'the adapter changes "vision", which is no matrix of its own in a model of architecture "llama"',
        ),
        (
            {name.replace("layers.0", "layers.9"): value for name, value in GOOD.items()},
            'the adapter changes "model.layers.9.self_attn.q_proj", which is no matrix of its own',
        ),
        (
            {**GOOD, **{name.replace("base_model.model.model.", ""): value for name, value in GOOD.items()}},
            'the adapter changes tensor "blk.0.attn_q.weight" twice',
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, base: Path, tensors: dict[str, np.ndarray[Any, Any]], sentence: str
) -> None:
    files = write_peft(tmp_path / "peft", PAIRS)
    safetensors_bytes.write(files["adapter_model.safetensors"], tensors)
    assert refusal(files, base, tmp_path / "adapter.gguf").startswith(sentence)


def test_an_output_that_is_the_embedding_cannot_be_adapted(tmp_path: Path) -> None:
    tied = next(case for case in CASES if case.name == "llama-tied-biased")
    convert(tied.write(tmp_path / "checkpoint"), tmp_path / "base.gguf", report=lambda step: None)
    files = write_peft(tmp_path / "peft", halves(CASE, ["lm_head"], {}))
    sentence = 'the adapter changes tensor "output.weight", which the model does not have'
    assert refusal(files, tmp_path / "base.gguf", tmp_path / "adapter.gguf") == sentence


def test_other_files_and_models_are_refused(tmp_path: Path, base: Path) -> None:
    files = write_peft(tmp_path / "peft", PAIRS)
    target = tmp_path / "adapter.gguf"
    assert refusal({}, base, target) == '"adapter_config.json" is missing'
    config = {"adapter_config.json": files["adapter_config.json"]}
    assert refusal(config, base, target) == "unknown tensor format"
    bert = tiny_bert(tmp_path / "bert.gguf")
    assert refusal(files, bert, target) == 'unsupported architecture "bert" of the adapter\'s model'
    assert not target.exists()


def test_an_adapter_of_mlx_of_another_kind_is_refused(tmp_path: Path, base: Path) -> None:
    files = write_mlx(tmp_path / "mlx", PAIRS, 2.0)
    config = files["adapter_config.json"]
    config.write_text(config.read_text().replace('"lora",', '"dora",'))
    sentence = "adapter_config.json: \"fine_tune_type\" is not supported by the engine: 'dora'"
    assert refusal(files, base, tmp_path / "adapter.gguf") == sentence
    config.write_text(config.read_text().replace('"dora",', '"lora",').replace('"rank": 4', '"rank": 8'))
    sentence = f'tensor "{FIRST}.lora_b" has the rank 4, by "adapter_config.json" 8'
    assert refusal(files, base, tmp_path / "adapter.gguf") == sentence


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), 1e-9, -1e9])
def test_a_strength_has_bounds(tmp_path: Path, base: Path, scale: float) -> None:
    files = write_peft(tmp_path / "peft", PAIRS)
    with pytest.raises(BadRequest) as raised:
        convert_adapter(files, base, tmp_path / "adapter.gguf", scale=scale, report=lambda step: None)
    assert str(raised.value).startswith(f"an adapter's scale is {scale:g}, neither")
    adapter = tiny_lora(tmp_path / "lora.gguf")
    with pytest.raises(BadRequest, match="an adapter's scale is"):
        lora.scaled(adapter, tmp_path / "scaled.gguf", scale, report=lambda step: None)


SHAPES = {"blk.0.attn_q.weight.lora_a": (4, 64), "blk.0.attn_q.weight.lora_b": (64, 4)}
FIELDS = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 16.0}


def adapter_file(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    architecture: str = "llama",
    dtype: str = "<f4",
    **fields: Any,
) -> GGUF:
    """A GGUF file with these tensors (row length last); `_` in the name of a field stands for a dot."""
    writer = GGUFWriter(path, architecture)
    for key, value in {**FIELDS, **{key.replace("_", "."): value for key, value in fields.items()}}.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    for name, shape in shapes.items():
        writer.add_tensor(name, np.ones(shape, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.read(path)


def test_an_adapter_that_fits_is_taken(tmp_path: Path) -> None:
    base = gguf.read(tiny_llama(tmp_path / "base.gguf"))
    lora.check(gguf.read(tiny_lora(tmp_path / "lora.gguf")), base)
    lora.check(adapter_file(tmp_path / "plain.gguf", adapter_lora_alpha=None), base)
    shapes = {"blk.0.attn_norm.weight": (64,), **SHAPES}
    lora.check(adapter_file(tmp_path / "norm.gguf", shapes), base)
    vocabulary = base.vocabulary_size
    shapes = {"token_embd.weight.lora_a": (vocabulary, 4), "token_embd.weight.lora_b": (64, 4)}
    lora.check(adapter_file(tmp_path / "embedding.gguf", shapes), base)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"general_type": "model"}, "the file is not an adapter"),
        ({"adapter_type": "ia3"}, 'adapters of type "ia3" are not supported'),
        (
            {"architecture": "qwen2"},
            'the adapter is for models of architecture "qwen2", the model is "llama"',
        ),
        ({"adapter_lora_alpha": 16}, 'key "adapter.lora.alpha" is of type uint32, not float32'),
        ({"adapter_lora_alpha": float("inf")}, 'key "adapter.lora.alpha" is inf'),
        ({"shapes": {}}, "the adapter has no tensors"),
        (
            {"shapes": {"blk.0.attn_q.weight.lora_a": (4, 64)}},
            'tensor "blk.0.attn_q.weight.lora_b" is missing',
        ),
        (
            {"shapes": {**SHAPES, "blk.0.attn_q.weight": (64, 64)}},
            'the adapter has a tensor "blk.0.attn_q.weight", which is no part of a LoRA',
        ),
        (
            {"shapes": {"x.lora_a": (4, 64), "x.lora_b": (64, 4)}},
            'the adapter changes tensor "x", which the model does',
        ),
        (
            {"shapes": {**SHAPES, "blk.0.attn_q.weight.lora_b": (64, 8)}},
            'tensors "blk.0.attn_q.weight.lora_a" and "blk.0.attn_q.weight.lora_b" have the shapes [64, 4] and [8, 64]',
        ),
        ({"shapes": {**SHAPES, "blk.0.attn_q.weight.lora_a": (4, 32)}}, "the adapter's tensors for"),
        ({"dtype": "<f8"}, 'tensor "blk.0.attn_q.weight.lora_a" has the type F64, which is not one for such weights'),
    ],
)
def test_an_adapter_for_another_model_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    base = gguf.read(tiny_llama(tmp_path / "base.gguf"))
    with pytest.raises(ModelFileError) as raised:
        lora.check(adapter_file(tmp_path / "adapter.gguf", **changes), base)
    assert str(raised.value).startswith(sentence)


def test_a_scaled_adapter_is_the_same_but_for_its_alpha(tmp_path: Path) -> None:
    adapter = gguf.read(tiny_lora(tmp_path / "lora.gguf", alpha=16.0))
    written = lora.scaled(adapter.path, tmp_path / "scaled.gguf", 0.25, report=lambda step: None)
    scaled = gguf.read(tmp_path / "scaled.gguf")
    assert dict(scaled.metadata) == {**adapter.metadata, "adapter.lora.alpha": 4.0}
    assert written.size == scaled.size == adapter.size
    before, after = GGUFReader(adapter.path).tensors, GGUFReader(scaled.path).tensors
    assert [tensor.name for tensor in before] == [tensor.name for tensor in after]
    assert all(np.array_equal(one.data, other.data) for one, other in zip(before, after, strict=True))


def test_without_alpha_the_rank_says_what_the_strength_is(tmp_path: Path) -> None:
    adapter = adapter_file(tmp_path / "plain.gguf", adapter_lora_alpha=None)
    lora.scaled(adapter.path, tmp_path / "scaled.gguf", 0.5, report=lambda step: None)
    assert gguf.read(tmp_path / "scaled.gguf").metadata["adapter.lora.alpha"] == 2.0
    shapes = {**SHAPES, "blk.0.attn_k.weight.lora_a": (8, 64), "blk.0.attn_k.weight.lora_b": (32, 8)}
    uneven = adapter_file(tmp_path / "uneven.gguf", shapes, adapter_lora_alpha=None)
    with pytest.raises(ModelFileError, match="the adapter has tensors of several ranks and no key"):
        lora.scaled(uneven.path, tmp_path / "scaled.gguf", 0.5, report=lambda step: None)


@given(data=st.data())
def test_a_changed_adapter_is_converted_or_refused(
    data: st.DataObject, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("changed")
    files = write_peft(work / "peft", PAIRS, rank_pattern={"q_proj": 4}, alpha_pattern={"k_proj": 2})
    changed = files[data.draw(st.sampled_from(sorted(files)))]
    content = bytearray(changed.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(len(content), 1500) - 1))] = data.draw(st.integers(0, 255))
    changed.write_bytes(bytes(content))
    with suppress(ModelFileError):
        convert_adapter(files, base, work / "adapter.gguf", report=lambda step: None)
        lora.check(gguf.read(work / "adapter.gguf"), gguf.read(base))
