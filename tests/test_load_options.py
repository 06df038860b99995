"""The table of load options: it covers every field, and both writers of a worker's options set the same."""

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import xllamacpp

from corral.engine.base import RunnerSpec, TunedSettings
from corral.engine.llama.worker import WorkerConfig, arguments, parameters
from corral.engine.load_options import LOAD_OPTIONS
from corral.engine.placement import Bytes, Parts, Placement, Share
from corral.options import Options

SPEC = RunnerSpec(model="model.gguf", num_ctx=2048, slots=4, pool=8192)

SPECS: dict[str, dict[str, object]] = {
    "plain": {},
    "projectors": {"projectors": ("p.gguf", "second.gguf")},
    "adapters": {"adapters": ("one.gguf", "two.gguf")},
    "embed": {"mode": "embed"},
    "mean": {"mode": "embed", "pooling": "mean"},
    "long embed": {"mode": "embed", "num_ctx": 512},
    "long": {"num_ctx": 8192, "pool": 32768},
    "longer": {"num_ctx": 65536, "pool": 65536},
    "asked for": {"num_ctx_automatic": False},
    "may grow": {"grown_ctx": 16384},
    "slots": {"slots": 1},
    "small batch": {"num_batch": 64},
    "large batch": {"num_batch": 4096},
    "small embedding batch": {"num_batch": 64, "mode": "embed"},
    "whole texts": {"text_batch": 8192, "num_ctx": 8192, "compute_bytes": 1, "mode": "embed"},
    "no layers": {"num_gpu": 0},
    "some layers": {"num_gpu": 7},
    "first gpu": {"main_gpu": 0},
    "second gpu": {"main_gpu": 1},
    "parts": {"parts": Parts((1,), (0,), 1)},
    "in main memory": {"placement": Placement(of=3, devices=1), "projectors": ("p.gguf",), "main_gpu": 1},
    "partly on a GPU": {"placement": Placement(of=3, devices=1, shares=(Share("Vulkan0", 0, 2, Bytes()),), cpu_moe=1)},
    "over GPUs": {
        "placement": Placement(
            of=9, devices=3, shares=(Share("CUDA2", 2, 5, Bytes()), Share("CUDA0", 0, 4, Bytes())), reason="why"
        )
    },
    "mmap": {"use_mmap": True},
    "no mmap": {"use_mmap": False},
    "threads": {"num_thread": 3},
    "no draft": {"draft_num_predict": 0},
    "draft": {"draft_num_predict": 4},
    "drafts": {"ngram_draft": 8},
    "a model's drafts": {"draft_model": "draft.gguf", "draft_tokens": 4},
    "log probabilities": {"needs_logprobs": True},
    "tuned": {"tuned": TunedSettings(num_thread=1, num_batch=256, repack=False)},
    "other template": {"own_template": False},
    "image tokens": {"image_min_tokens": 1024},
    "attention": {"flash_attention": "on"},
    "no attention": {"flash_attention": "off"},
    "estimates": {"weights_bytes": 1, "cache_bytes_per_token": 1, "resumable": True},
    **{name: {"cache_type": name} for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")},
}


def put(path: str, convert: Callable[[str], Any]) -> Callable[[Any, str], None]:
    """How llama-server's parser of its command line stores an argument."""
    *parents, name = path.split(".")

    def store(params: Any, text: str) -> None:
        for parent in parents:
            params = getattr(params, parent)
        setattr(params, name, convert(text))

    return store


def add_adapter(params: Any, path: str) -> None:
    params.lora_adapters = [*params.lora_adapters, xllamacpp.CommonAdapterLoraInfo(path, 1.0)]


CACHE_TYPES = {
    name: getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")
    for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
}
ATTENTION = {
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
}
LOAD_MODES = {
    "none": xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE,
    "mmap": xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP,
}
SPECULATION = {
    "ngram-simple": [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE],
    "draft-simple": [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE],
}
POOLING = {"mean": xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN}

SWITCHES: dict[str, tuple[str, bool]] = {
    "--no-prefill-assistant": ("prefill_assistant", False),
    "--no-webui": ("ui", False),
    "--offline": ("offline", True),
    "--no-warmup": ("warmup", False),
    "--kv-unified": ("kv_unified", True),
    "--no-repack": ("no_extra_bufts", True),
    "--embeddings": ("embedding", True),
    "--context-shift": ("ctx_shift", True),
    "--no-mmproj-offload": ("mmproj_use_gpu", False),
}
FLAGS: dict[str, Callable[[Any, str], None]] = {
    "--port": put("port", lambda text: 0),  # the built-in engine chooses a free one itself
    "--host": put("hostnames", lambda text: [text]),
    "--cache-ram": put("cache_ram_mib", int),
    "--model": put("model.path", str),
    "--mmproj": put("mmproj.path", str),
    "--lora": add_adapter,
    "--pooling": put("pooling_type", POOLING.__getitem__),
    "--kv-unified-per-slot": put("kv_unified_per_slot", int),
    "--parallel": put("n_parallel", int),
    "--ctx-size": put("n_ctx", int),
    "--batch-size": put("n_batch", int),
    "--ubatch-size": put("n_ubatch", int),
    "--gpu-layers": put("n_gpu_layers", int),
    "--fit": put("fit_params", {"on": True, "off": False}.__getitem__),
    "--main-gpu": put("main_gpu", int),
    "--load-mode": put("load_mode", LOAD_MODES.__getitem__),
    "--threads": put("cpuparams.n_threads", int),
    "--threads-batch": put("cpuparams_batch.n_threads", int),
    "--chat-template": put("chat_template", str),
    "--image-min-tokens": put("image_min_tokens", int),
    "--cache-type-k": put("cache_type_k", CACHE_TYPES.__getitem__),
    "--cache-type-v": put("cache_type_v", CACHE_TYPES.__getitem__),
    "--spec-type": put("speculative.types", SPECULATION.__getitem__),
    "--spec-draft-model": put("speculative.draft.mparams.path", str),
    "--spec-draft-n-max": put("speculative.draft.n_max", int),
    "--spec-draft-ngl": put("speculative.draft.n_gpu_layers", int),
    "--spec-ngram-simple-size-n": put("speculative.ngram_simple.size_n", int),
    "--spec-ngram-simple-size-m": put("speculative.ngram_simple.size_m", int),
    "--flash-attn": put("flash_attn_type", ATTENTION.__getitem__),
    "--verbosity": put("verbosity", int),
    "--tensor-split": lambda params, text: split(params, text),
    "--n-cpu-moe": lambda params, text: experts(params, int(text)),
}
"""llama-server's flags as its own parser reads them, written here from its help and not from our table."""


NOT_IN_THE_WHEEL = ("--device",)
"""Without `--device` shares of the tensors are by all devices, in their order."""


def split(params: Any, text: str) -> None:
    params.tensor_split = [*map(float, text.split(",")), *params.tensor_split][:128]


def experts(params: Any, layers: int) -> None:
    assert layers == 1
    params.tensor_buft_overrides = r"blk\.(0)\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"


def parsed(line: list[str]) -> Any:
    params = xllamacpp.CommonParams()
    words = iter(line)
    for word in words:
        if word in NOT_IN_THE_WHEEL:
            next(words)
        elif word in SWITCHES:
            setattr(params, *SWITCHES[word])
        else:
            FLAGS[word](params, next(words))
    return params


def facts(value: Any) -> Any:
    """Everything that stands in a parameter object, comparable."""
    if isinstance(value, bool | int | float | str | None | enum.Enum):
        return value
    if isinstance(value, list | tuple):
        return [facts(item) for item in value]
    if isinstance(value, dict):
        return {key: facts(item) for key, item in value.items()}
    names = [name for name in dir(value) if not name.startswith("_") and not callable(getattr(value, name))]
    return {name: facts(getattr(value, name)) for name in names}


@pytest.mark.parametrize("case", SPECS)
def test_the_built_in_engine_and_a_program_are_set_alike(case: str) -> None:
    spec = msgspec.structs.replace(SPEC, **SPECS[case])
    config = WorkerConfig(spec=spec, key="secret", parent=0, cache_ram_mib=77)
    own, program = facts(parameters(xllamacpp, config)), facts(parsed(arguments(config, 1234)))
    assert own.pop("api_keys") == ["secret"]
    assert program.pop("api_keys") == [], "a program gets the key in its environment, where no list of processes shows"
    if spec.placement is not None and len(spec.placement.shares) > 1:
        assert own.pop("tensor_split")[:4] == [4.0, 0.0, 5.0, 0.0]
        assert program.pop("tensor_split")[:3] == [5.0, 4.0, 0.0]
    if spec.num_gpu < 0 and spec.placement is None:  # the built-in engine fits a model only where there is a GPU
        has_gpu = any(device["type"] != CPU for device in xllamacpp.get_device_info())
        assert (own.pop("fit_params"), program.pop("fit_params")) == (has_gpu, True)
    assert own == program
    assert own["model"]["path"] == "model.gguf"


CPU = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU


def test_every_case_of_a_field_is_tried() -> None:
    changed = {field for changes in SPECS.values() for field in changes}
    assert changed | {"model"} == set(RunnerSpec.__struct_fields__)


def test_every_field_has_one_row() -> None:
    assert sorted(option.field for option in LOAD_OPTIONS) == sorted(RunnerSpec.__struct_fields__)


def test_an_option_of_a_request_sets_a_field_that_has_its_name() -> None:
    given = {option.option for option in LOAD_OPTIONS if option.option}
    assert given == set(RunnerSpec.__struct_fields__) & set(Options.__struct_fields__)
    assert all(option.option in ("", option.field) for option in LOAD_OPTIONS)


def test_the_engine_knows_every_flag() -> None:
    """The library holds the command line's parser too: each flag is a text in it."""
    folder = Path(xllamacpp.__file__).parent
    library = b"".join(file.read_bytes() for file in folder.iterdir() if file.suffix in (".so", ".pyd"))
    assert [flag for flag in (*FLAGS, *SWITCHES) if flag.encode() + b"\0" not in library] == []
    assert b"--mmap\0" not in library, "which was a flag once"
