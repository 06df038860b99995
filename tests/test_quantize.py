"""Files quantised as a caller has it done, against what two other libraries make of the same numbers."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import libgguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType

from corral import gguf
from corral.background import Work
from corral.cage import Cage
from corral.errors import DiskFull, EngineError, ModelFileError, StoreError
from corral.gguf import writer
from corral.gguf.output import Written
from corral.job import Job
from corral.messages import Progress
from corral.quantize import KINDS, library, quantize, run
from corral.quantize.library import Library
from tests.conftest import ROOT
from tests.quantize_files import LLAMA, Array, bf16, fields, numbers, raw, types, write_gguf

RANDOM = np.random.default_rng(5)


def random(*shape: int, scale: float = 0.05) -> Array:
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def made(source: Path, kind: str, imatrix: Path | None = None, threads: int = 2) -> Path:
    target = source.with_name(f"{source.stem}-{kind}.gguf")
    quantize(source, target, kind, threads=threads, report=lambda _: None, imatrix=imatrix)
    return target


def rounded(array: Array, kind: str, weights: Array | None = None) -> bytes:
    """What the other library makes of 32-bit floats."""
    return bytes(libgguf.quantize_rows(array, GGMLQuantizationType[kind], weights).tobytes())


@pytest.mark.parametrize("type_", sorted(set(KINDS.values()) - {"Q8_0"}))
def test_the_bytes_are_those_of_another_library(tmp_path: Path, type_: str) -> None:
    """With rows of which none is special, and with zeros, one outlier, and equal values."""
    rows = random(37, 512)
    rows[1] = 0
    rows[2, 100] = 30
    rows[3] = 0.25
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"blk.0.attn_q.weight": rows, "output.weight": random(8, 512)})
    kind = next(kind for kind in KINDS if KINDS[kind] == type_)
    target = made(source, kind)
    assert types(target)["blk.0.attn_q.weight"] == type_
    assert raw(target)["blk.0.attn_q.weight"] == rounded(rows, type_)


def test_q8_0_differs_by_a_step_here_and_there(tmp_path: Path) -> None:
    """Its quicker function rounds other numbers up of those that lie in the middle; the scales are the same."""
    rows = random(200, 512).astype("f2").astype("f4")
    found = np.frombuffer(
        raw(made(write_gguf(tmp_path / "a.gguf", LLAMA, {"output.weight": rows}), "Q8_0"))["output.weight"], np.int8
    )
    expected = np.frombuffer(rounded(rows, "Q8_0"), np.int8)
    found, expected = found.reshape(-1, 34), expected.reshape(-1, 34)
    assert (found[:, :2] == expected[:, :2]).all()
    distance = np.abs(found[:, 2:].astype(int) - expected[:, 2:])
    assert distance.max() <= 1
    assert distance.mean() < 0.001


BOUNDS = {"F32": 0, "F16": 0.0005, "BF16": 0.004, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_K": 0.05, "Q5_1": 0.05, "Q5_0": 0.06}
BOUNDS |= {"Q4_K": 0.1, "Q4_1": 0.1, "Q4_0": 0.12, "IQ4_NL": 0.1, "IQ4_XS": 0.1, "Q3_K": 0.25, "Q2_K": 0.4}
"""Largest root mean square of the error, of that of the numbers."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["F32", "F16", "BF16"])
def test_every_kind_is_close_to_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, given: str
) -> None:
    """Pieces, strides and rows of all lengths come to lie where they belong."""
    monkeypatch.setattr(run, "_PIECE", 8000)
    monkeypatch.setattr(run, "_STRIDE", 3000)
    tensors = {
        "token_embd.weight": random(60, 512),
        "output_norm.weight": random(512),
        "blk.0.attn_v.weight": random(33, 256),
        "blk.0.ffn_down.weight": random(2, 10240),
        "blk.0.ffn_up.weight": random(1, 512),
        "blk.1.attn_q.weight": random(5, 96),
        "blk.1.ffn_up_exps.weight": random(3, 40, 512),
    }
    # the engine calculates with rows by themselves in 32 bits only
    stored = {name: stored_as(array, given if array.ndim > 1 else "F32") for name, array in tensors.items()}
    source = write_gguf(tmp_path / "a.gguf", LLAMA, stored)
    target = made(source, kind)
    before, after, kept = numbers(source), numbers(target), types(target)
    assert list(after) == list(tensors)
    assert (kept["output_norm.weight"], kept["blk.0.ffn_up.weight"]) == ("F32", given)
    for name, array in before.items():
        error = np.sqrt(np.mean((after[name] - array) ** 2) / np.mean(array**2))
        assert error <= BOUNDS[kept[name]], (name, kept[name])


def stored_as(array: Array, kind: str) -> Array:
    return bf16(array) if kind == "BF16" else array.astype({"F32": np.float32, "F16": np.float16}[kind])


def test_the_result_does_not_depend_on_threads_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"blk.0.attn_q.weight": random(300, 512).astype(np.float16), "blk.0.attn_norm.weight": random(512)}
    source = write_gguf(tmp_path / "a.gguf", LLAMA, arrays)
    whole = made(source, "Q4_K_M", threads=1).read_bytes()
    for piece, stride, threads in ((1, 1, 3), (1000, 700, 2), (5120, 2048, 7)):
        monkeypatch.setattr(run, "_PIECE", piece)
        monkeypatch.setattr(run, "_STRIDE", stride)
        monkeypatch.setattr(run, "_COPIED", 64)
        assert made(source, "Q4_K_M", threads=threads).read_bytes() == whole


def test_the_header_says_what_the_file_is_now(tmp_path: Path) -> None:
    values = {
        **LLAMA,
        "general.file_type": 1,
        "general.name": "wonder",
        "general.alignment": 64,
        "split.no": 0,
        "split.count": 0,
        "split.tensors.count": 1,
    }
    laid_out = tmp_path / "a.gguf"
    with_alignment(laid_out, values)
    found = gguf.read(made(laid_out, "Q4_K_S"))
    assert (found.file_type, found.integer("general.quantization_version")) == ("Q4_K_S", 2)
    assert (found.text("general.name"), found.alignment, found.version) == ("wonder", 64, 3)
    assert not [key for key in found.metadata if key.startswith("split.")]
    assert {tensor.offset % 64 for tensor in found.tensors} == {0}


def with_alignment(path: Path, values: dict[str, Any]) -> None:
    listed = [writer.new_tensor(f"blk.{number}.attn_q.weight", "F16", (256, 3)) for number in range(3)]
    laid_out = writer.layout(fields(values), listed, alignment=values["general.alignment"])
    with open(path, "wb") as file:
        file.write(laid_out.header)
        for tensor in laid_out.tensors:
            file.write(random(3, 256).astype(np.float16).tobytes() + laid_out.padding(tensor))


def test_what_is_quantised_already_stays_as_it_is(tmp_path: Path) -> None:
    rows = random(4, 512)
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"blk.0.ffn_down.weight": rows, "d2t": np.zeros(8, np.int32)})
    first = made(source, "Q5_0")
    again = made(first, "Q4_0")
    assert types(again) == {"blk.0.ffn_down.weight": "Q5_0", "d2t": "I32"}
    assert raw(again) == raw(first)


def test_progress_counts_the_sources_bytes_and_the_digest_is_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_PIECE", 512 * 10)
    monkeypatch.setattr(run, "_REPORT", 512 * 20 * 2)
    source = write_gguf(
        tmp_path / "a.gguf", LLAMA | {"general.file_type": 1}, {"output.weight": random(95, 512).astype("f2")}
    )
    steps: list[Progress] = []
    written = quantize(source, tmp_path / "b.gguf", "Q8_0", threads=2, report=steps.append)
    assert [step.completed for step in steps] == [0, *range(20 * 1024, 95 * 1024, 20 * 1024), 95 * 1024]
    assert {(step.status, step.total) for step in steps} == {("quantizing F16 model to Q8_0", 95 * 1024)}
    whole = (tmp_path / "b.gguf").read_bytes()
    assert written == Written(hashlib.sha256(whole).hexdigest(), len(whole))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("blk.0.attn_q.weight", given) for given in ("F32", "F16", "BF16")),
        ("blk.0.attn_norm.weight", "F32"),
    ],
)
def test_numbers_that_are_none_are_an_error_with_the_tensors_name(
    tmp_path: Path, given: str, bad: float, name: str
) -> None:
    rows = random(100, 512)
    rows[77, 300] = bad
    source = write_gguf(
        tmp_path / "a.gguf", LLAMA, {"blk.0.attn_k.weight": random(4, 512), name: stored_as(rows, given)}
    )
    with pytest.raises(ModelFileError, match=f'^tensor "{name}" has numbers that are not finite$'):
        made(source, "Q4_K_M")


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_K_M", "IQ4_XS"])
def test_numbers_beyond_what_the_type_holds_are_an_error(tmp_path: Path, kind: str) -> None:
    rows = random(100, 512)
    rows[77] = 3e38  # their squares are infinite, they are not
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"output.weight": rows[:3], "blk.0.attn_q.weight": rows})
    with pytest.raises(ModelFileError, match=r'^tensor "blk.0.attn_q.weight" has numbers that are too large for'):
        made(source, kind)
    assert numbers(made(source, "BF16"))["blk.0.attn_q.weight"][77, 0] == pytest.approx(3e38, rel=0.01)


def test_a_source_cut_short_on_the_way_is_an_error(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"blk.0.attn_q.weight": random(100, 512)})

    def report(_: Progress) -> None:
        os.truncate(source, source.stat().st_size - 10)

    with pytest.raises(ModelFileError, match=r'^the file became shorter while tensor "blk.0.attn_q.weight" was read$'):
        quantize(source, tmp_path / "b", "Q8_0", threads=2, report=report)


def test_a_target_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"blk.0.attn_q.weight": random(100, 512)})
    with pytest.raises(DiskFull):
        quantize(source, Path("/dev/full"), "Q8_0", threads=2, report=lambda _: None)
    with pytest.raises(StoreError):
        quantize(source, tmp_path / "missing" / "b", "Q8_0", threads=2, report=lambda _: None)


async def test_it_can_be_given_up_between_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_PIECE", 512)
    monkeypatch.setattr(run, "_REPORT", 1)
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"blk.0.attn_q.weight": random(300, 512)})
    target = tmp_path / "b.gguf"
    steps = Work(lambda report: quantize(source, target, "Q8_0", threads=2, report=report)).steps()
    await anext(steps)
    await steps.aclose()
    assert target.stat().st_size < made(source, "Q8_0").stat().st_size


async def test_it_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = write_gguf(tmp_path / "a.gguf", LLAMA, {"blk.0.attn_q.weight": random(300, 512)})
    (tmp_path / "b").touch()  # as a file of the store is there before it is written
    arguments = {"source": source, "target": tmp_path / "b", "kind": "Q4_0", "threads": 2, "imatrix": None}
    job = Job("corral.quantize:quantize", Written, "quantizing the model", cage=Cage(), **arguments)
    assert [step.completed async for step in job.steps()] == [0, 300 * 2048]
    assert job.result.digest == hashlib.sha256(made(source, "Q4_0").read_bytes()).hexdigest()


def test_what_heavy_libraries_it_needs_are_loaded_in_the_child_only() -> None:
    code = "import corral.quantize, sys; sys.exit(bool({'numpy', 'xllamacpp', 'ctypes'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_engines_library_has_the_functions_that_are_called() -> None:
    """Fails when a new engine no longer has one of them, or another calls for other arguments."""
    native = library.library()
    floats = np.linspace(-1, 1, 32, dtype=np.float32)
    target = np.empty(34, np.uint8)
    native.from_floats("Q8_0", floats, target, 32, None)
    assert target.tobytes() == rounded(floats, "Q8_0")
    target[:] = 0
    native.from_floats_plainly("Q8_0", floats, target, 32, None)
    assert target.tobytes() == rounded(floats, "Q8_0")
    space = np.empty(32, np.float32)
    assert native.to_floats("F16", floats.astype("f2").view(np.uint8), space) == pytest.approx(floats, abs=0.001)
    assert native.to_floats("BF16", bf16(floats).view(np.uint8), space) == pytest.approx(floats, abs=0.01)
    assert native.is_finite("Q8_0", target)
    target[:2] = 255
    assert not native.is_finite("Q8_0", target)


def test_a_library_without_the_functions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^the engine's library cannot quantize: .*ggml_cpu_init"):
        Library(Path(np.__file__).parent / "_core" / other_library())
    with pytest.raises(EngineError, match=r"^the engine's library cannot quantize: "):
        Library(tmp_path / "missing.so")


def other_library() -> str:
    return next((Path(np.__file__).parent / "_core").glob("_multiarray_umath*.so")).name
