"""Adapters in the real engine: a model with an adapter says what the same model says with its weights merged."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral import gguf
from corral.convert import convert
from corral.convert.adapters import convert_adapter
from corral.gguf import adapters
from tests.asking import generate
from tests.conftest import RunningServer, add_model, running_server
from tests.lora_models import Array, halves, matrices, write_merged, write_mlx, write_peft
from tests.reference.models import CASES, Case

TOLERANCE = 0.06
"""In log probability: merged weights are rounded to 16 bits, and a model's and its adapter's apart from each other."""
ARCHITECTURES = (
    *("llama", "llama-yarn", "mistral", "mixtral", "qwen2", "qwen3", "qwen3-experts"),
    *("gemma", "gemma2", "gemma3", "phi3", "granite"),
)
PLAIN = {case.name: replace(case, dtype="F32", long=False) for case in CASES if case.name in ARCHITECTURES}
LLAMA = PLAIN["llama-yarn"]
Pairs = Mapping[str, tuple[Array, Array]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("adapters")
    with running_server(home, OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_NUM_PARALLEL="1") as running:
        yield running


def unreported(_: object) -> None:
    """Takes steps of work that no one watches."""


def converted(case: Case, folder: Path, files: Mapping[str, Path] | None = None) -> Path:
    """A checkpoint as GGUF: the case's own, or these files."""
    target = folder.with_suffix(".gguf")
    convert(files or case.write(folder), target, report=unreported)
    return target


def said(server: RunningServer, name: str, *files: Path) -> dict[str, float]:
    """What a model made of these files says."""
    add_model(server.models, name, *files)
    return said_by(server, name)


def said_by(server: RunningServer, name: str) -> dict[str, float]:
    """Log probabilities of the likeliest tokens after a prompt."""
    options = {"num_predict": 1, "temperature": 0, "repeat_penalty": 1}
    prompt = "you ask the system and that is"
    answer = generate(server, prompt, name, raw=True, logprobs=True, top_logprobs=20, options=options)
    assert answer.status == 200, answer.body
    (logprobs,) = answer.json["logprobs"]
    return {one["token"]: one["logprob"] for one in logprobs["top_logprobs"]}


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How far the likelier half of one's tokens is from the other's, at most."""
    likely = sorted(one, key=lambda token: -one[token])[:10]
    return max(abs(one[token] - other[token]) if token in other else math.inf for token in likely)


def check_same(server: RunningServer, work: Path, case: Case, adapter: Path, pairs: Pairs, strengths: Any) -> None:
    """The model with the adapter says what the merged one says, and not what it says without."""
    base = converted(case, work / "base")
    merged = converted(case, work / "merged", write_merged(work / "merged", case, pairs, strengths))
    expected = said(server, f"{work.name}-merged".lower(), merged)
    given = said(server, f"{work.name}-adapted".lower(), base, adapter)
    assert distance(expected, given) < TOLERANCE
    assert distance(expected, said(server, f"{work.name}-base".lower(), base)) > 5 * TOLERANCE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_does_what_merging_does(server: RunningServer, tmp_path: Path, name: str) -> None:
    case = PLAIN[name]
    pairs = halves(case, matrices(case), {})
    base = converted(case, tmp_path / "base")
    adapter = tmp_path / "adapter.gguf"
    convert_adapter(write_peft(tmp_path / "peft", pairs), base, adapter, report=unreported)
    adapters.check(gguf.read(adapter), gguf.read(base))
    check_same(server, tmp_path, case, adapter, pairs, 2.0)


def test_embedding_and_output_may_be_adapted(server: RunningServer, tmp_path: Path) -> None:
    case = LLAMA
    pairs = halves(case, ["lm_head"], {})
    down, up = halves(case, ["model.embed_tokens"], {})["model.embed_tokens"]
    pairs["model.embed_tokens"] = (up.T.copy() / 4, down.T.copy())
    base = converted(case, tmp_path / "base")
    adapter = tmp_path / "adapter.gguf"
    convert_adapter(write_peft(tmp_path / "peft", pairs), base, adapter, report=unreported)
    adapters.check(gguf.read(adapter), gguf.read(base))
    check_same(server, tmp_path, case, adapter, pairs, 2.0)


def test_modules_have_ranks_and_strengths_of_their_own(server: RunningServer, tmp_path: Path) -> None:
    pairs = halves(LLAMA, matrices(LLAMA), {"q_proj": 2, "down_proj": 8})
    config: dict[str, Any] = {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2, "mlp.down_proj": 8},
        "alpha_pattern": {"model.layers.0.self_attn.k_proj": 3, "v_proj": 5.5},
    }
    base = converted(LLAMA, tmp_path / "base")
    adapter = tmp_path / "adapter.gguf"
    convert_adapter(write_peft(tmp_path / "peft", pairs, **config), base, adapter, report=unreported)
    strengths = {}
    for module, (down, _) in pairs.items():
        alpha = 3.0 if module == "model.layers.0.self_attn.k_proj" else 5.5 if module.endswith("v_proj") else 8.0
        strengths[module] = alpha / math.sqrt(len(down))
    check_same(server, tmp_path, LLAMA, adapter, pairs, strengths)


def test_an_adapter_of_mlx_does_what_merging_does(server: RunningServer, tmp_path: Path) -> None:
    pairs = halves(LLAMA, matrices(LLAMA), {})
    base = converted(LLAMA, tmp_path / "base")
    adapter = tmp_path / "adapter.gguf"
    convert_adapter(write_mlx(tmp_path / "mlx", pairs, 1.75), base, adapter, report=unreported)
    check_same(server, tmp_path, LLAMA, adapter, pairs, 1.75)


@pytest.mark.parametrize("scale", [0.5, -1.0])
def test_an_adapter_may_count_more_or_less(server: RunningServer, tmp_path: Path, scale: float) -> None:
    pairs = halves(LLAMA, matrices(LLAMA), {})
    base = converted(LLAMA, tmp_path / "base")
    whole, scaled, again = tmp_path / "whole.gguf", tmp_path / "scaled.gguf", tmp_path / "again.gguf"
    files = write_peft(tmp_path / "peft", pairs)
    convert_adapter(files, base, whole, report=unreported)
    convert_adapter(files, base, scaled, scale=scale, report=unreported)
    written = adapters.scaled(whole, again, scale, report=unreported)
    assert written.size == again.stat().st_size
    assert again.read_bytes() == scaled.read_bytes()
    check_same(server, tmp_path, LLAMA, scaled, pairs, 2.0 * scale)
