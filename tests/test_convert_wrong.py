"""Checkpoint folders that cannot be converted: each is refused with a sentence that says why."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.convert import architectures, convert
from corral.convert.checkpoint import Checkpoint
from corral.errors import ModelFileError, StoreError
from tests import safetensors_bytes
from tests.reference.models import CASES, PADDED, WIDTH, Case, sharded

Array = np.ndarray[Any, Any]

BY_NAME = {case.name: case for case in CASES}
LLAMA = BY_NAME["llama"]
EMBEDDING, QUERY = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"


def refused(files: dict[str, Path], work: Path) -> str:
    """The sentence with which the folder is refused."""
    with pytest.raises(ModelFileError) as raised:
        convert(files, work / "model.gguf", report=lambda step: None)
    return str(raised.value)


Spoil = Callable[[dict[str, Any], dict[str, Array]], None]


def config(**changes: Any) -> Spoil:
    """A configuration with other values; None leaves one out."""

    def spoil(config: dict[str, Any], weights: dict[str, Array]) -> None:
        for key, value in changes.items():
            config[key] = value
            if value is None:
                del config[key]

    return spoil


def weight(name: str, change: Callable[[Array], Array] | None) -> Spoil:
    """A checkpoint with a tensor changed, or left out."""

    def spoil(config: dict[str, Any], weights: dict[str, Array]) -> None:
        old = weights.pop(name, np.zeros(1, np.float32))
        if change is not None:
            weights[name] = change(old)

    return spoil


def with_first(value: float) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array.flat[array.size - 1] = value
        return array

    return change


INPUT = "model.layers.1.input_layernorm.weight"

WRONG: list[tuple[Spoil, str]] = [
    (config(architectures=None), "unknown architecture"),
    (config(architectures=[]), "unknown architecture"),
    (config(architectures="LlamaForCausalLM"), "unknown architecture"),
    (config(architectures=[7]), "unknown architecture"),
    (config(architectures=["FalconForCausalLM"]), 'unsupported architecture "FalconForCausalLM"'),
    (config(hidden_size=None), 'config.json: "hidden_size" is missing'),
    (config(hidden_size="64"), "config.json: \"hidden_size\" is not a whole number: '64'"),
    (config(hidden_size=64.0), 'config.json: "hidden_size" is not a whole number: 64.0'),
    (config(hidden_size=True), 'config.json: "hidden_size" is not a whole number: True'),
    (config(hidden_size=-64), 'config.json: "hidden_size" is -64, not between 1 and 1048576'),
    (config(hidden_size=10**30), f'config.json: "hidden_size" is {10**30}, not between 1 and 1048576'),
    (config(num_attention_heads=0), 'config.json: "num_attention_heads" is 0, not between 1 and 64'),
    (
        config(num_attention_heads=5, num_key_value_heads=None),
        'config.json: "num_attention_heads" is 5, which does not divide 64 elements',
    ),
    (config(num_key_value_heads=3), 'config.json: "num_key_value_heads" is 3, which does not divide 4 heads'),
    (config(num_key_value_heads=8), 'config.json: "num_key_value_heads" is 8, not between 1 and 4'),
    (config(head_dim=15), "heads of 15 elements cannot be turned in pairs"),
    (config(num_hidden_layers=10**6), 'config.json: "num_hidden_layers" is 1000000, not between 1 and 512'),
    (config(num_hidden_layers=3), 'tensor "model.layers.2.input_layernorm.weight" is missing'),
    (
        config(num_hidden_layers=1),
        f'tensor "{INPUT}" has no place in a model of this configuration',
    ),
    (config(vocab_size=0), 'config.json: "vocab_size" is 0, not between 1 and 1048576'),
    (
        config(vocab_size=1000),
        f'tensor "{EMBEDDING}" has the shape [{PADDED}, 64], by the configuration [1000, 64]',
    ),
    (config(rms_norm_eps=float("nan")), 'config.json: "rms_norm_eps" is nan, not above 0 and up to 1'),
    (config(rms_norm_eps=-1), 'config.json: "rms_norm_eps" is -1, not above 0 and up to 1'),
    (config(rope_theta=float("inf")), 'config.json: "rope_theta" is inf, not above 0 and up to 1e+15'),
    (config(rope_theta=[]), 'config.json: "rope_theta" is not a number: []'),
    (config(rope_scaling=7), 'config.json: "rope_scaling" is not an object: 7'),
    (config(rope_scaling={"type": "odd"}), 'rope scaling of the kind "odd" is not supported by the engine'),
    (config(rope_scaling={"type": 3}), 'config.json: "rope_scaling": "type" is not a text: 3'),
    (config(rope_scaling={"type": "linear"}), 'config.json: "rope_scaling": "factor" is missing'),
    (
        config(rope_scaling={"type": "linear", "factor": 0}),
        'config.json: "rope_scaling": "factor" is 0, not above 0 and up to 1e+09',
    ),
    (
        config(rope_scaling={"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}),
        'config.json: "rope_scaling": "long_factor" is not a list of 8 numbers',
    ),
    (
        config(partial_rotary_factor=0.5),
        'config.json: "partial_rotary_factor" below 1 is not supported by the engine',
    ),
    (config(hidden_act="relu"), "config.json: \"hidden_act\" is not supported by the engine: 'relu'"),
    (config(tie_word_embeddings="no"), "config.json: \"tie_word_embeddings\" is neither true nor false: 'no'"),
    (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        'weights quantised by "gptq" cannot be converted',
    ),
    (
        config(quantization_config={"quant_method": "fp8", "weight_block_size": [100, 128]}),
        "weights with a scale for each 100 numbers cannot be converted",
    ),
    (config(attention_bias=True), 'tensor "model.layers.0.self_attn.q_proj.bias" is missing'),
    (weight("lm_head.weight", None), 'tensor "lm_head.weight" is missing'),
    (weight(QUERY, None), f'tensor "{QUERY}" is missing'),
    (weight(QUERY, lambda array: array[1:]), f'tensor "{QUERY}" has the shape [63, 64], by the configuration [64, 64]'),
    (
        weight(QUERY, lambda array: array.reshape(64, 64, 1)),
        f'tensor "{QUERY}" has the shape [64, 64, 1], by the configuration [64, 64]',
    ),
    (weight("model.odd", lambda array: array), 'tensor "model.odd" has no place in a model of this configuration'),
    (weight(QUERY, with_first(np.nan)), f'tensor "{QUERY}" has numbers that are infinite or NaN'),
    (weight(INPUT, with_first(-np.inf)), f'tensor "{INPUT}" has numbers that are infinite or NaN'),
    (weight(QUERY, with_first(-70000)), f'tensor "{QUERY}" has the number 70000, which is too large for F16'),
]


@pytest.mark.parametrize(("spoil", "sentence"), WRONG, ids=[sentence[:60] for _, sentence in WRONG])
def test_a_wrong_checkpoint_is_refused_with_what_is_wrong(tmp_path: Path, spoil: Spoil, sentence: str) -> None:
    files, weights, settings = LLAMA.write(tmp_path / "in"), LLAMA.weights(), dict(LLAMA.config)
    spoil(settings, weights)
    files["config.json"].write_text(json.dumps(settings))
    safetensors_bytes.write(files["model.safetensors"], weights)
    assert refused(files, tmp_path) == sentence


@pytest.mark.parametrize("dtype", ["I64", "U8"])
def test_weights_that_are_no_floats_are_refused(tmp_path: Path, dtype: str) -> None:
    files = LLAMA.write(tmp_path / "in")
    stored = {key: ("F32", value.shape, value.tobytes()) for key, value in LLAMA.weights().items()}
    stored[QUERY] = (dtype, (WIDTH, WIDTH), bytes(WIDTH * WIDTH * (8 if dtype == "I64" else 1)))
    safetensors_bytes.write_raw(files["model.safetensors"], stored)
    assert refused(files, tmp_path) == f'unknown data type: {dtype} of tensor "{QUERY}"'


@pytest.mark.parametrize("shape", [None, (3, 3), (65, 1), (0, 0), (4, 4, 1)])
def test_fp8_whose_scales_do_not_fit_is_refused(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    files = LLAMA.write(tmp_path / "in")
    stored = {key: ("F32", value.shape, value.tobytes()) for key, value in LLAMA.weights().items()}
    stored[QUERY] = ("F8_E4M3", (WIDTH, WIDTH), bytes(WIDTH * WIDTH))
    if shape is not None:
        stored[QUERY + "_scale_inv"] = ("F32", shape, np.ones(shape, np.float32).tobytes())
    safetensors_bytes.write_raw(files["model.safetensors"], stored)
    assert refused(files, tmp_path) == f'tensor "{QUERY}" is F8_E4M3 without scales that fit it'


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        convert(LLAMA.write(tmp_path / "in"), tmp_path / "no folder" / "model.gguf", report=lambda step: None)


def test_a_missing_file_of_several_is_named(tmp_path: Path) -> None:
    files = sharded(LLAMA, tmp_path / "sharded", 3)
    name = "model-00002-of-00003.safetensors"
    del files[name]
    assert refused(files, tmp_path) == f'"{name}" is missing, which "model.safetensors.index.json" names'
    del files["model.safetensors.index.json"]
    assert refused(files, tmp_path) == f'"{name}" is missing'


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b.safetensors", "..\\x.safetensors"])
def test_an_index_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    files = sharded(LLAMA, tmp_path / "sharded", 1)
    index = files["model.safetensors.index.json"]
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    assert refused(files, tmp_path) == (
        f'"model.safetensors.index.json" names "{name}", which is not a safetensors file of its folder'
    )


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    files = LLAMA.write(tmp_path / "in")
    files["model-b.safetensors"] = safetensors_bytes.write(tmp_path / "b", {QUERY: np.zeros((2, 2))})
    assert refused(files, tmp_path) == f"duplicate tensor name '{QUERY}' was found for this model"


@pytest.mark.parametrize(
    ("case", "changes", "sentence"),
    [
        ("phi3", {"head_dim": 32}, "4 heads of 32 are not the 64 elements of a Phi 3"),
        (
            "phi3",
            {"partial_rotary_factor": 0.01},
            'config.json: "partial_rotary_factor" turns 0 elements, which are not pairs',
        ),
        (
            "gemma2",
            {"query_pre_attn_scalar": 144},
            'config.json: "query_pre_attn_scalar" is 144, where the engine takes 32',
        ),
        (
            "gemma3",
            {"final_logit_softcapping": 30.0},
            'config.json: "final_logit_softcapping" is not supported by the engine: 30.0',
        ),
        (
            "gemma3",
            {"layer_types": ["full_attention", "sliding_attention"] * 3},
            'config.json: "layer_types" have no period, which the engine cannot compute',
        ),
        (
            "gemma3",
            {"layer_types": ["full_attention"] * 6},
            "a Gemma none of whose layers looks back at a window is not supported by the engine",
        ),
        ("qwen3-experts", {"num_experts_per_tok": 5}, 'config.json: "num_experts_per_tok" is 5, not between 1 and 4'),
        (
            "qwen3-experts",
            {"norm_topk_prob": False},
            'config.json: "norm_topk_prob" is not supported by the engine: False',
        ),
        (
            "qwen3-experts",
            {"num_experts": 4096, "num_hidden_layers": 512},
            "the configuration asks for more than 262144 tensors of experts",
        ),
        ("qwen3", {"attention_bias": True}, 'config.json: "attention_bias" is not supported by the engine: True'),
        (
            "bert",
            {"position_embedding_type": "relative_key"},
            "config.json: \"position_embedding_type\" is not supported by the engine: 'relative_key'",
        ),
        ("nomic-bert", {"num_experts": 8}, 'config.json: "num_experts" is not supported by the engine: 8'),
    ],
)
def test_what_the_engine_would_compute_otherwise_is_refused(
    tmp_path: Path, case: str, changes: dict[str, Any], sentence: str
) -> None:
    files = BY_NAME[case].write(tmp_path / "in")
    files["config.json"].write_text(json.dumps({**BY_NAME[case].config, **changes}))
    assert refused(files, tmp_path) == sentence


@pytest.mark.parametrize(
    ("modules", "pooling", "sentence"),
    [
        ("{}", "{}", '"modules.json" is not a list of modules'),
        ("[7]", "{}", '"modules.json" has a module without type or path'),
        (
            '[{"type": "a.Dense", "path": "2_Dense"}]',
            "{}",
            'the module "Dense" of "modules.json" is not supported by the engine',
        ),
        ('[{"type": "a.Pooling", "path": "../x"}]', "{}", '"../x/config.json" is missing'),
        ('[{"type": "a.Pooling", "path": "1_Pooling"}]', "{}", "pooling by none is not supported by the engine"),
        (
            '[{"type": "a.Pooling", "path": "1_Pooling"}]',
            '{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}',
            'pooling by "pooling_mode_mean_tokens" and "pooling_mode_max_tokens" is not supported by the engine',
        ),
        (
            '[{"type": "a.Pooling", "path": "1_Pooling"}]',
            '{"pooling_mode": "max"}',
            'pooling by "max" is not supported by the engine',
        ),
    ],
)
def test_pooling_that_the_engine_does_not_do_is_refused(
    tmp_path: Path, modules: str, pooling: str, sentence: str
) -> None:
    files = BY_NAME["bert"].write(tmp_path / "in")
    files["modules.json"].write_text(modules)
    files["1_Pooling/config.json"].write_text(pooling)
    assert refused(files, tmp_path) == sentence


@pytest.mark.parametrize("text", ["", "[", "7", "[]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\ud800"])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    files = LLAMA.write(tmp_path / "in")
    files["config.json"].write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refused(files, tmp_path) in ('"config.json" is not JSON', '"config.json" is not a JSON object')


def test_a_folder_without_configuration_or_weights_is_refused(tmp_path: Path) -> None:
    files = LLAMA.write(tmp_path / "in")
    without = {name: file for name, file in files.items() if name != "config.json"}
    assert refused(without, tmp_path) == '"config.json" is missing'
    pickled = {name.replace("model.safetensors", "pytorch_model.bin"): file for name, file in files.items()}
    assert refused(pickled, tmp_path) == "unknown tensor format"


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), case=st.sampled_from(CASES))
def test_any_configuration_is_planned_or_refused(data: st.DataObject, case: Case) -> None:
    """Some of a good configuration's values are others, at any depth."""
    settings = dict(case.config)
    for key in data.draw(st.lists(st.sampled_from([*settings, *_FURTHER]), min_size=1, max_size=3, unique=True)):
        value = settings.get(key)
        if isinstance(value, dict) and value and data.draw(st.booleans()):
            settings[key] = {**value, data.draw(st.sampled_from(list(value))): data.draw(_JSON)}
        else:
            settings[key] = data.draw(_JSON | st.sampled_from([{"rope_type": kind, "factor": 2.0} for kind in _KINDS]))
    with contextlib.suppress(ModelFileError):
        architectures.plan(Checkpoint({}, settings))


_FURTHER = ("head_dim", "layer_types", "rope_parameters", "sliding_window", "use_sliding_window", "quantization_config")
_KINDS = ("default", "linear", "llama3", "yarn", "longrope", "dynamic")
