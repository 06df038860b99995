"""Loads that fail in the real engine: the error names the first cause, and a lack of memory is of a kind of its own."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from corral.engine.base import RunnerSpec
from corral.engine.llama.launch import launch
from corral.engine.placement import Bytes, Placement, Share
from corral.errors import EngineDied, EngineError, OutOfMemory
from tests import drafts
from tests.tiny_models import tiny_llama

TERMINATED = "llama-server process has terminated: "


async def failure(tmp_path: Path, spec: RunnerSpec) -> EngineError:
    """The error of a load that fails."""
    with pytest.raises(EngineError) as raised:
        await launch(spec, log=tmp_path / "worker.log", stall_timeout=60)
    return raised.value


@pytest.fixture
def spec(tiny_gguf: Path) -> RunnerSpec:
    return RunnerSpec(model=str(tiny_gguf), num_ctx=512, pool=512)


def changed(tmp_path: Path, source: str, old: bytes, new: bytes) -> str:
    """A copy of a file with some bytes replaced by as many others."""
    assert len(old) == len(new)
    content = Path(source).read_bytes()
    assert old in content
    copy = tmp_path / "changed.gguf"
    copy.write_bytes(content.replace(old, new))
    return str(copy)


def first_half(tmp_path: Path, source: str) -> str:
    content = Path(source).read_bytes()
    half = tmp_path / "half.gguf"
    half.write_bytes(content[: len(content) // 2])
    return str(half)


async def test_an_unknown_architecture_is_named(tmp_path: Path, spec: RunnerSpec) -> None:
    file = changed(tmp_path, spec.model, b"llama", b"wond9")
    error = await failure(tmp_path, msgspec.structs.replace(spec, model=file))
    assert type(error) is EngineDied
    assert str(error) == TERMINATED + "error loading model: unknown model architecture: 'wond9'"


async def test_a_missing_tensor_is_named(tmp_path: Path, spec: RunnerSpec) -> None:
    file = changed(tmp_path, spec.model, b"blk.0.attn_q.weight", b"blk.0.attn_z.weight")
    error = await failure(tmp_path, msgspec.structs.replace(spec, model=file))
    assert str(error).startswith(TERMINATED + "error loading model: ")
    assert str(error).endswith("tensor 'blk.0.attn_q.weight' not found")


async def test_a_file_cut_short_is_called_incomplete(tmp_path: Path, spec: RunnerSpec) -> None:
    error = await failure(tmp_path, msgspec.structs.replace(spec, model=first_half(tmp_path, spec.model)))
    assert str(error).endswith("data is not within the file bounds, model is corrupted or incomplete")


async def test_a_broken_adapter_is_named(tmp_path: Path, spec: RunnerSpec) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"GGUF" + bytes(100))
    error = await failure(tmp_path, msgspec.structs.replace(spec, adapters=(str(adapter),)))
    assert str(error) == f"{TERMINATED}failed to load lora adapter '{adapter}': bad GGUF version: 0"


async def test_a_model_in_the_place_of_an_adapter_is_named(tmp_path: Path, spec: RunnerSpec) -> None:
    other = tiny_llama(tmp_path / "other.gguf", seed=1)
    error = await failure(tmp_path, msgspec.structs.replace(spec, adapters=(str(other),)))
    assert f"failed to load lora adapter '{other}': " in str(error)
    assert "expect general.type to be 'adapter', but got: model" in str(error)


async def test_a_missing_projector_is_named(tmp_path: Path, spec: RunnerSpec) -> None:
    missing = tmp_path / "none.gguf"
    error = await failure(tmp_path, msgspec.structs.replace(spec, projectors=(str(missing),)))
    assert str(error) == (
        f"{TERMINATED}failed to load multimodal model, '{missing}': "
        f"failed to open GGUF file '{missing}' (No such file or directory)"
    )


async def test_options_that_the_engine_cannot_take_are_its_own_error(tmp_path: Path, spec: RunnerSpec) -> None:
    error = await failure(tmp_path, msgspec.structs.replace(spec, pool=1 << 40))
    assert str(error) == TERMINATED + "value too large to convert to int32_t"


@contextmanager
def address_space(most: int) -> Iterator[None]:
    """Processes started meanwhile may map no more bytes than that."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


async def test_memory_that_does_not_suffice_is_reported_as_such(tmp_path: Path, starter_gguf: Path) -> None:
    """A million tokens of the small model take 23 GB of KV cache."""
    spec = RunnerSpec(model=str(starter_gguf), num_ctx=1 << 20, pool=1 << 20)
    with address_space(16 << 30):
        error = await failure(tmp_path, spec)
    assert type(error) is OutOfMemory
    assert str(error) == (
        "not enough memory to load the model: insufficient memory (attempted to allocate 23040.00 MB)"
    )


async def test_the_engine_takes_the_list_of_experts_that_lie_in_main_memory(tmp_path: Path, spec: RunnerSpec) -> None:
    """It says so in its log; which they are shows on a device only."""
    (tmp_path / "experts.gguf").write_bytes(drafts.experts().encode())
    share = Share(device="CUDA0", index=0, layers=3, bytes=Bytes())
    placement = Placement(of=3, cpu_moe=1, devices=1, shares=(share,))
    mixture = msgspec.structs.replace(spec, model=str(tmp_path / "experts.gguf"), placement=placement)
    engine = await launch(mixture, log=tmp_path / "worker.log", stall_timeout=60)
    await engine.close()
    assert "tensor overrides to CPU are used" in (tmp_path / "worker.log").read_text()
