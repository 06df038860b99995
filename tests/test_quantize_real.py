"""The real 135M model, quantised anew from 16-bit floats, loaded into the real engine and asked."""

from pathlib import Path

import pytest

from corral import gguf
from corral.quantize import quantize
from tests.asking import generate, post
from tests.conftest import StartServer, add_model
from tests.quantize_files import as_f16


@pytest.fixture(scope="module")
def floats(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_f16(starter_gguf, tmp_path_factory.mktemp("floats") / "f16.gguf")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "BF16"])
def test_a_quantised_model_answers(start_server: StartServer, tmp_path: Path, floats: Path, kind: str) -> None:
    assert_answers(start_server, tmp_path, floats, kind)


def test_so_does_one_that_was_quantised_in_part_already(
    start_server: StartServer, tmp_path: Path, starter_gguf: Path
) -> None:
    """IQ4_XS takes a second for two million numbers; the other layers stay as they are."""
    source = as_f16(starter_gguf, tmp_path / "f16.gguf", layers=4)
    assert_answers(start_server, tmp_path, source, "IQ4_XS")
    types = {tensor.type for tensor in gguf.read(tmp_path / "IQ4_XS.gguf").tensors}
    assert types == {"F32", "IQ4_XS", "IQ4_NL", "Q4_1", "Q5_K", "Q8_0"}


def assert_answers(start_server: StartServer, tmp_path: Path, source: Path, kind: str) -> None:
    target = tmp_path / f"{kind}.gguf"
    written = quantize(source, target, kind, threads=2, report=lambda _: None)
    assert written.size == target.stat().st_size == gguf.read(target).size
    add_model(tmp_path / "home" / ".ollama" / "models", "made", target)
    server = start_server(tmp_path / "home")
    briefly = {"temperature": 0, "num_predict": 6}
    answer = generate(server, "The capital of France is", model="made", raw=True, options=briefly)
    assert "Paris" in answer.json["response"]
    assert post(server, "/api/show", {"model": "made"}).json["details"]["quantization_level"] == kind


def test_it_has_the_types_of_the_published_file(tmp_path: Path, starter_gguf: Path, floats: Path) -> None:
    quantize(floats, tmp_path / "again.gguf", "Q4_1", threads=2, report=lambda _: None)
    before, after = gguf.read(starter_gguf), gguf.read(tmp_path / "again.gguf")
    assert [(one.name, one.type, one.shape, one.offset - after.data_offset) for one in after.tensors] == [
        (one.name, one.type, one.shape, one.offset - before.data_offset) for one in before.tensors
    ]
