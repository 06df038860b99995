"""Importance matrices in both formats, true ones and false ones."""

import struct
from collections.abc import Mapping
from pathlib import Path

import libgguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.errors import ModelFileError
from corral.gguf import writer
from corral.quantize import quantize
from corral.quantize.imatrix import Imatrix
from tests.quantize_files import LLAMA, Array, raw, write_gguf

RANDOM = np.random.default_rng(7)
QUERY, EXPERTS = "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"
TENSORS: dict[str, Array] = {
    QUERY: RANDOM.standard_normal((20, 512)).astype(np.float32),
    EXPERTS: RANDOM.standard_normal((3, 10, 256)).astype(np.float32),
    "blk.0.attn_k.weight": RANDOM.standard_normal((20, 512)).astype(np.float32),
}
SUMS: dict[str, Array] = {
    QUERY: RANDOM.random((1, 512), np.float32) * 100,
    EXPERTS: RANDOM.random((3, 256), np.float32) * 100,
}
COUNTS: dict[str, Array] = {QUERY: np.array([[8]], np.float32), EXPERTS: np.array([[4], [0], [2]], np.float32)}
MEANS = {QUERY: SUMS[QUERY] / 8, EXPERTS: np.array([SUMS[EXPERTS][0] / 4, np.ones(256), SUMS[EXPERTS][2] / 2], "f4")}
"""An expert that was never asked counts the same everywhere."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model.gguf", LLAMA, TENSORS)


def matrix_gguf(path: Path, sums: Mapping[str, Array] = SUMS, counts: Mapping[str, Array] = COUNTS) -> Path:
    tensors = {f"{name}.in_sum2": array for name, array in sums.items()}
    tensors |= {f"{name}.counts": array for name, array in counts.items()}
    return write_gguf(path, {"general.type": "imatrix", "imatrix.chunk_count": 1, "imatrix.chunk_size": 512}, tensors)


def matrix_list(path: Path, entries: Mapping[str, tuple[int, Array]]) -> Path:
    parts = [struct.pack("<i", len(entries))]
    for name, (calls, sums) in entries.items():
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", calls, sums.size), sums.tobytes()]
    path.write_bytes(b"".join(parts) + struct.pack("<i", 1) + struct.pack("<i", 4) + b"text")
    return path


def weighed(tensor: Array, kind: str, weights: Array) -> bytes:
    """What another library makes of the matrices of a tensor, each with its row of weights."""
    rows = tensor.reshape(len(weights), -1, tensor.shape[-1])
    number = GGMLQuantizationType[kind]
    return b"".join(libgguf.quantize_rows(one, number, ours).tobytes() for one, ours in zip(rows, weights, strict=True))


@pytest.mark.parametrize(
    ("kind", "type_"), [("Q4_K_S", "Q4_K"), ("Q5_0", "Q5_0"), ("IQ4_XS", "IQ4_XS"), ("Q6_K", "Q6_K")]
)
def test_the_weights_are_those_another_library_uses(source: Path, kind: str, type_: str) -> None:
    target, matrix = source.with_name("b.gguf"), matrix_gguf(source.with_name("imatrix.gguf"))
    quantize(source, target, kind, threads=2, report=lambda _: None, imatrix=matrix)
    found = raw(target)
    assert found[QUERY] == weighed(TENSORS[QUERY], type_, MEANS[QUERY])
    assert found[EXPERTS] == weighed(TENSORS[EXPERTS], type_, MEANS[EXPERTS])
    plain = source.with_name("plain.gguf")
    quantize(source, plain, kind, threads=2, report=lambda _: None)
    assert found["blk.0.attn_k.weight"] == raw(plain)["blk.0.attn_k.weight"]
    assert found[QUERY] != raw(plain)[QUERY]


def test_both_formats_say_the_same(source: Path) -> None:
    plain = source.with_name("imatrix.dat")
    matrix_list(plain, {QUERY: (8, SUMS[QUERY]), EXPERTS: (1, MEANS[EXPERTS])})
    made = {}
    for matrix in (plain, matrix_gguf(source.with_name("imatrix.gguf"))):
        target = matrix.with_suffix(".quantised")
        made[matrix] = quantize(source, target, "Q4_K_M", threads=2, report=lambda _: None, imatrix=matrix)
    assert len(set(made.values())) == 1


def expected_error(source: Path, matrix: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        quantize(source, source.with_name("b.gguf"), "Q4_K_M", threads=2, report=lambda _: None, imatrix=matrix)
    return str(caught.value).replace(str(matrix), "MATRIX")


def test_what_does_not_fit_the_model_is_an_error(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    shorter = {**SUMS, QUERY: SUMS[QUERY][:, :256].copy()}
    assert expected_error(source, matrix_gguf(path, shorter)) == (
        'the importance matrix has 256 weights for "blk.0.attn_q.weight", which needs 512'
    )
    assert expected_error(source, matrix_list(path, {EXPERTS: (1, SUMS[QUERY])})) == (
        'the importance matrix has 512 weights for "blk.0.ffn_up_exps.weight", which needs 768'
    )
    one_count_too_few = {**COUNTS, EXPERTS: COUNTS[EXPERTS][:2].copy()}
    assert expected_error(source, matrix_gguf(path, SUMS, one_count_too_few)) == (
        'the importance matrix has 2 counts for "blk.0.ffn_up_exps.weight"'
    )
    assert expected_error(source, matrix_gguf(path, {"other": SUMS[QUERY]}, {"other": COUNTS[QUERY]})) == (
        'the importance matrix "MATRIX" is of another model: no tensor has its name there'
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1])
def test_weights_that_are_no_weights_are_an_error(source: Path, tmp_path: Path, bad: float) -> None:
    sums = SUMS[QUERY].copy()
    sums[0, 99] = bad
    sentence = 'the importance matrix has numbers for "blk.0.attn_q.weight" that are negative or not finite'
    assert expected_error(source, matrix_list(tmp_path / "a", {QUERY: (2, sums)})) == sentence
    assert expected_error(source, matrix_gguf(tmp_path / "b", {**SUMS, QUERY: sums})) == sentence
    counts = {**COUNTS, QUERY: np.array([[bad]], np.float32)}
    assert expected_error(source, matrix_gguf(tmp_path / "c", SUMS, counts)) == sentence


def test_the_weights_of_embedded_texts_are_left_out_where_they_do_not_fit(tmp_path: Path) -> None:
    tensors = {"token_embd.weight": TENSORS[QUERY], "output.weight": TENSORS[QUERY], QUERY: TENSORS[QUERY]}
    source = write_gguf(tmp_path / "model.gguf", LLAMA, tensors)
    matrix = matrix_list(tmp_path / "a", {"token_embd.weight": (1, SUMS[EXPERTS]), QUERY: (8, SUMS[QUERY])})
    quantize(source, tmp_path / "b", "Q4_K_M", threads=1, report=lambda _: None, imatrix=matrix)
    assert raw(tmp_path / "b")[QUERY] == weighed(TENSORS[QUERY], "Q4_K", MEANS[QUERY])


def test_files_that_are_no_importance_matrix_are_an_error(source: Path, tmp_path: Path) -> None:
    assert expected_error(source, source) == '"MATRIX" is no importance matrix'
    path = tmp_path / "a"
    for content in (b"", b"\1", b"\xff\xff\xff\xff", struct.pack("<ii", 1, 1 << 30), struct.pack("<ii", 1, -5) + b"a"):
        path.write_bytes(content)
        assert expected_error(source, path) == '"MATRIX" is no importance matrix'
    path.write_bytes(struct.pack("<i", 0))
    assert expected_error(source, path) == 'the importance matrix "MATRIX" has no entries'
    path.write_bytes(struct.pack("<ii1sii", 1, 1, b"a", 1, 1 << 30))
    assert expected_error(source, path) == '"MATRIX" is no importance matrix'
    assert expected_error(source, tmp_path / "missing") == 'cannot read "MATRIX": No such file or directory'
    without = {name: array for name, array in COUNTS.items() if name != QUERY}
    assert expected_error(source, matrix_gguf(path, SUMS, without)) == (
        f'the importance matrix "MATRIX" has sums without counts: "{QUERY}.in_sum2"'
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.integers(0, 200))
def test_no_file_gets_further_than_an_error(tmp_path: Path, noise: bytes, place: int) -> None:
    """Noise at any place of a true file, and noise alone."""
    path = tmp_path / "a"
    tensors = [writer.new_tensor(name, "F32", array.shape[::-1]) for name, array in TENSORS.items()]
    whole = matrix_list(path, {QUERY: (8, SUMS[QUERY]), EXPERTS: (2, SUMS[EXPERTS])}).read_bytes()
    for content in (noise, whole[:place] + noise + whole[place + len(noise) :], whole[: place * 20]):
        path.write_bytes(content)
        try:
            matrix = Imatrix(path)
            for tensor in tensors:
                matrix.weights(tensor)
        except ModelFileError:
            pass
