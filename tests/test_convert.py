"""Checkpoint folders into GGUF files: what comes of them, number by number, and a sentence for each that is wrong."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from corral import gguf
from corral.convert import convert
from corral.convert.arrays import E4M3
from corral.gguf.output import Written
from corral.messages import Progress
from tests import safetensors_bytes
from tests.reference.models import CASES, HEADS, PADDED, WIDTH, Case, sharded

Array = np.ndarray[Any, Any]

BY_NAME = {case.name: case for case in CASES}
LLAMA = BY_NAME["llama"]
EMBEDDING, QUERY = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"


def converted(case: Case, work: Path) -> Path:
    """The case's checkpoint as a GGUF file."""
    return into_gguf(case.write(work / "checkpoint"), work)


def into_gguf(files: dict[str, Path], work: Path) -> Path:
    convert(files, work / "model.gguf", report=lambda step: None)
    return work / "model.gguf"


def tensors(path: Path) -> dict[str, Array]:
    """The tensors of a GGUF file in their types; bfloat16 as `uint16`."""
    return {
        tensor.name: tensor.data.view(np.uint16) if tensor.tensor_type.name == "BF16" else tensor.data
        for tensor in GGUFReader(path).tensors
    }


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in gguf.read(path).tensors}


def test_the_file_is_what_is_said_of_it_and_its_progress_is_reported(tmp_path: Path) -> None:
    steps: list[Progress] = []
    written = convert(LLAMA.write(tmp_path / "in"), tmp_path / "out.gguf", report=steps.append)
    file = gguf.read(tmp_path / "out.gguf")
    assert written == Written(hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest(), file.size)
    assert {(step.status, step.total) for step in steps} == {("converting model", file.size)}
    assert [step.completed for step in steps] == sorted(step.completed for step in steps)
    assert file.capabilities == ("completion",)
    assert (file.architecture, file.file_type, file.vocabulary_size) == ("llama", "F16", PADDED)
    assert len(file.values("tokenizer.ggml.tokens")) == PADDED


@pytest.mark.parametrize(("dtype", "kind"), [("F32", "F16"), ("F16", "F16"), ("BF16", "BF16")])
def test_matrices_get_16_bits_and_vectors_32(tmp_path: Path, dtype: str, kind: str) -> None:
    path = converted(replace(BY_NAME["llama-tied-biased"], dtype=dtype), tmp_path)
    assert {(len(tensor.shape), tensor.type) for tensor in gguf.read(path).tensors} == {(1, "F32"), (2, kind)}
    found, weights = tensors(path), BY_NAME["llama-tied-biased"].weights()
    stored = safetensors_bytes.encoded(weights[EMBEDDING], "BF16" if dtype == "BF16" else "F16")
    assert found["token_embd.weight"].tobytes() == stored
    norm = np.frombuffer(safetensors_bytes.encoded(weights["model.norm.weight"], dtype), np_type(dtype))
    assert (found["output_norm.weight"] == widened(norm)).all()


def np_type(dtype: str) -> Any:
    return {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[dtype]


def widened(array: Array) -> Array:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def test_the_router_of_experts_and_token_types_keep_32_bits(tmp_path: Path) -> None:
    assert types(converted(BY_NAME["mixtral"], tmp_path))["blk.0.ffn_gate_inp.weight"] == "F32"
    assert types(converted(BY_NAME["bert"], tmp_path / "bert"))["token_types.weight"] == "F32"


def test_what_turns_together_comes_to_lie_side_by_side(tmp_path: Path) -> None:
    weight = LLAMA.weights()[QUERY].astype(np.float16)
    found = tensors(converted(LLAMA, tmp_path))["blk.0.attn_q.weight"]
    head = WIDTH // HEADS
    for number in range(HEADS):
        for pair in range(head // 2):
            for half in range(2):
                at = number * head + half * head // 2 + pair
                assert (found[number * head + 2 * pair + half] == weight[at]).all()


def test_a_tensor_larger_than_a_slice_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice boundary there is: one row at a time, but whole heads where heads are rearranged."""
    whole = converted(LLAMA, tmp_path).read_bytes()
    monkeypatch.setattr("corral.convert.recipe.SLICE", 1)
    assert converted(LLAMA, tmp_path).read_bytes() == whole


def test_experts_are_stacked_in_their_order(tmp_path: Path) -> None:
    case = BY_NAME["mixtral"]
    found, weights = tensors(converted(case, tmp_path)), case.weights()
    for name, part in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
        stacked = found[f"blk.1.ffn_{name}_exps.weight"]
        for number in range(4):
            one = weights[f"model.layers.1.block_sparse_moe.experts.{number}.{part}.weight"]
            assert (stacked[number] == one.astype(np.float16)).all()


def test_the_factors_of_llama_3_are_those_published_with_it(tmp_path: Path) -> None:
    """Of Llama 3.1's own configuration: 64 frequencies, of which the longest waves are stretched eightfold."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = {**LLAMA.config, "head_dim": 128, "rope_theta": 500000.0, "rope_scaling": scaling}
    factors = tensors(converted(replace(LLAMA, config=config), tmp_path))["rope_freqs.weight"]
    assert (factors[:29] == 1).all()
    assert (factors[35:] == 8).all()
    assert (np.diff(factors[28:36]) > 0).all()


def test_a_window_that_the_engine_does_not_compute_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, changes, window in (
        ("mistral", {}, 96),
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {"sliding_window": 512}, None),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True}, 64),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, None),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}, None),
        ("phi3", {"sliding_window": 64}, 64),
        ("gemma2", {}, None),
    ):
        case = replace(BY_NAME[name], config={**BY_NAME[name].config, **changes})
        assert gguf.read(converted(case, tmp_path)).context_length == 512
        said = [record.message.split(":")[0] for record in caplog.records]
        assert said == (
            [] if window is None else [f"the model looks back at {window} tokens, the engine at all of 512"]
        )
        caplog.clear()


@pytest.mark.parametrize("indexed", [True, False])
def test_a_model_in_several_files_is_the_same_model(tmp_path: Path, indexed: bool) -> None:
    whole = converted(LLAMA, tmp_path).read_bytes()
    files = sharded(LLAMA, tmp_path / "sharded", 3)
    if not indexed:
        del files["model.safetensors.index.json"]
    files["consolidated.safetensors"] = tmp_path / "not looked at"
    assert into_gguf(files, tmp_path).read_bytes() == whole


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_"])
def test_the_text_model_of_one_that_sees_is_converted_alone(
    tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ways in which its tensors have been named; the pictures' tensors are left out."""
    alone = converted(BY_NAME["gemma3"], tmp_path).read_bytes()
    text = {key: value for key, value in BY_NAME["gemma3"].config.items() if key != "architectures"}
    ids = {key: text[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text, **ids}
    case = replace(BY_NAME["gemma3"], config=config, prefix=prefix)
    files = case.write(tmp_path / "seeing")
    weights = {**case.weights(), f"{vision(prefix)}vision_tower.post_layernorm.bias": np.zeros(3)}
    safetensors_bytes.write(files["model.safetensors"], weights)
    assert into_gguf(files, tmp_path).read_bytes() == alone
    assert [record.message for record in caplog.records] == ["the text model is converted alone: it sees no pictures"]


def vision(prefix: str) -> str:
    return "" if prefix == "language_model." else "model."


def test_a_mark_that_the_model_has_no_number_for_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Gemma 3 1B is published: 262144 rows, and a mark for pictures with the number 262144."""
    files = LLAMA.write(tmp_path / "in")
    expected = into_gguf(files, tmp_path).read_bytes()
    tokenizer = json.loads(files["tokenizer.json"].read_text())
    mark = {**tokenizer["added_tokens"][0], "id": PADDED, "content": "<image_soft_token>"}
    tokenizer["added_tokens"].append(mark)
    files["tokenizer.json"].write_text(json.dumps(tokenizer))
    assert into_gguf(files, tmp_path).read_bytes() == expected
    (record,) = caplog.records
    assert record.message == "1 marks of the tokenizer are left out, whose numbers the model does not have"


def test_the_first_words_for_nomic_bert_mean_the_same(tmp_path: Path) -> None:
    config = BY_NAME["nomic-bert"].config
    published = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "n_embd": config["hidden_size"],
        "n_head": config["num_attention_heads"],
        "n_layer": config["num_hidden_layers"],
        "n_inner": config["intermediate_size"],
        "n_positions": 8192,
        "max_trained_positions": config["max_position_embeddings"],
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_scaling_factor": None,
        "activation_function": "swiglu",
        "qkv_proj_bias": False,
        "prenorm": False,
        "vocab_size": config["vocab_size"],
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }
    files = BY_NAME["nomic-bert"].write(tmp_path / "in")
    native = into_gguf(files, tmp_path).read_bytes()
    files["config.json"].write_text(json.dumps(published))
    assert into_gguf(files, tmp_path).read_bytes() == native


NEWER: dict[str, dict[str, Any]] = {
    "llama-3": {
        "rope_parameters": {**BY_NAME["llama-3"].config.get("rope_scaling", {}), "rope_theta": 10000.0},
    },
    "gemma3": {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
}
"""What newer releases of transformers write instead of `_OLDER`."""

_OLDER = ("rope_theta", "rope_scaling", "rope_local_base_freq", "sliding_window_pattern", "partial_rotary_factor")


@pytest.mark.parametrize("name", NEWER)
def test_newer_words_for_positions_mean_the_same(tmp_path: Path, name: str) -> None:
    older = converted(BY_NAME[name], tmp_path).read_bytes()
    kept = {key: value for key, value in BY_NAME[name].config.items() if key not in _OLDER}
    assert converted(replace(BY_NAME[name], config={**kept, **NEWER[name]}), tmp_path).read_bytes() == older


@pytest.mark.parametrize(
    ("mode", "number"),
    [({"pooling_mode": "mean"}, 1), ({"pooling_mode_cls_token": True}, 2), ({"pooling_mode": "lasttoken"}, 3)],
)
def test_pooling_is_what_the_folder_says(tmp_path: Path, mode: dict[str, Any], number: int) -> None:
    files = BY_NAME["bert"].write(tmp_path / "in")
    files["1_Pooling/config.json"].write_text(json.dumps(mode))
    assert gguf.read(into_gguf(files, tmp_path)).integer("pooling_type") == number
    del files["modules.json"]
    assert gguf.read(into_gguf(files, tmp_path)).integer("pooling_type") == 1


@pytest.mark.parametrize("ending", ["_scale_inv", "_scale"])
@pytest.mark.parametrize("grid", [(1, 1), (WIDTH, 1), (2, 4), ()])
def test_fp8_is_scaled(tmp_path: Path, grid: tuple[int, ...], ending: str) -> None:
    """One scale for all, for each row, or for each block; the reference is computed number by number."""
    files = LLAMA.write(tmp_path / "in")
    config = {**LLAMA.config, "quantization_config": {"quant_method": "fp8", "weight_block_size": [32, 16]}}
    files["config.json"].write_text(json.dumps(config))
    random, name = np.random.default_rng(1), "model.layers.0.self_attn.v_proj.weight"
    raw = random.integers(0, 127, (WIDTH, WIDTH)).astype(np.uint8) | (
        random.integers(0, 2, (WIDTH, WIDTH)) << 7
    ).astype(np.uint8)
    scales = random.uniform(0.01, 0.1, grid).astype(np.float32)
    stored = {key: ("F32", value.shape, value.tobytes()) for key, value in LLAMA.weights().items() if key != name}
    stored[name] = ("F8_E4M3", raw.shape, raw.tobytes())
    stored[name + ending] = ("F32", grid, scales.tobytes())
    safetensors_bytes.write_raw(files["model.safetensors"], stored)
    found = tensors(into_gguf(files, tmp_path))["blk.0.attn_v.weight"]
    rows, columns = (*grid, 1, 1)[:2]
    for row in range(0, WIDTH, 7):
        for column in range(WIDTH):
            scale = scales.reshape(rows, columns)[row * rows // WIDTH, column * columns // WIDTH]
            assert found[row, column] == np.float16(e4m3(int(raw[row, column])) * scale)


def e4m3(bits: int) -> np.float32:
    """The number by the format's definition."""
    sign, exponent, fraction = bits >> 7, bits >> 3 & 15, bits & 7
    value = fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
    return np.float32(-value if sign else value)


def test_the_largest_numbers_of_fp8_are_read() -> None:
    assert float(E4M3[0x7E]) == 448
    assert np.isnan(E4M3[[0x7F, 0xFF]]).all()


def test_numbers_that_json_does_not_know_are_read(tmp_path: Path) -> None:
    """Such as a limit of Infinity among what the model does not need."""
    config = {**LLAMA.config, "limits": [float("inf"), float("-inf"), float("nan")]}
    assert "Infinity" in json.dumps(config)
    assert gguf.read(converted(replace(LLAMA, config=config), tmp_path)).architecture == "llama"
