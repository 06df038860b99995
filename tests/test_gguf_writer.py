"""Files written by `gguf.writer`, read back by our own reader and by the format's reference library."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from corral import gguf
from corral.errors import DiskFull, ModelFileError, StoreError
from corral.gguf import writer
from corral.gguf.output import HashedFile, Written
from corral.gguf.types import ValueType


def write(path: Path, fields: dict[str, bytes], tensors: list[gguf.Tensor], alignment: int = 32) -> Path:
    """Each tensor's bytes count up from its number."""
    laid_out = writer.layout(fields, tensors, alignment=alignment)
    with open(path, "wb") as file:
        file.write(laid_out.header)
        for number, tensor in enumerate(laid_out.tensors):
            assert file.tell() == tensor.offset
            file.write(bytes((number + at) % 256 for at in range(tensor.size)))
            file.write(laid_out.padding(tensor))
        assert file.tell() == laid_out.size
    return path


FIELDS = {
    "general.architecture": writer.encode(ValueType.STRING, "llama"),
    "llama.block_count": writer.encode(ValueType.UINT32, 2),
    "llama.rope.freq_base": writer.encode(ValueType.FLOAT32, 10000.0),
    "tokenizer.ggml.tokens": writer.encode_array(ValueType.STRING, ["<s>", "你", ""]),
    "tokenizer.ggml.token_type": writer.encode_array(ValueType.INT32, [3, 1, 1]),
    "tokenizer.ggml.add_bos_token": writer.encode(ValueType.BOOL, True),
}
TENSORS = [
    writer.new_tensor("token_embd.weight", "F16", (8, 3)),
    writer.new_tensor("output_norm.weight", "F32", (5,)),
    writer.new_tensor("blk.0.attn_q.weight", "Q8_0", (32, 2)),
]


def test_our_reader_finds_what_was_written(tmp_path: Path) -> None:
    found = gguf.read(write(tmp_path / "a.gguf", FIELDS, TENSORS))
    assert found.values("tokenizer.ggml.tokens") == ["<s>", "你", ""]
    assert (found.block_count, found.add_bos, found.get("rope.freq_base")) == (2, True, 10000.0)
    assert [(tensor.name, tensor.type, tensor.shape, tensor.size) for tensor in found.tensors] == [
        ("token_embd.weight", "F16", (8, 3), 48),
        ("output_norm.weight", "F32", (5,), 20),
        ("blk.0.attn_q.weight", "Q8_0", (32, 2), 68),
    ]


def test_the_reference_library_finds_what_was_written(tmp_path: Path) -> None:
    found = GGUFReader(write(tmp_path / "a.gguf", FIELDS, TENSORS))
    assert found.fields["tokenizer.ggml.tokens"].contents() == ["<s>", "你", ""]
    assert [tensor.name for tensor in found.tensors] == [tensor.name for tensor in TENSORS]
    assert np.frombuffer(found.tensors[1].data.tobytes(), np.uint8).tolist() == list(range(1, 21))


def test_a_larger_alignment_is_kept(tmp_path: Path) -> None:
    fields = FIELDS | {"general.alignment": writer.encode(ValueType.UINT32, 256)}
    found = gguf.read(write(tmp_path / "a.gguf", fields, TENSORS, alignment=256))
    assert {tensor.offset % 256 for tensor in found.tensors} == {0}


def test_copied_fields_are_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", FIELDS, TENSORS)
    assert writer.copied_fields(gguf.read(path)) == FIELDS


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    with HashedFile(tmp_path / "a") as output:
        output.write(b"one")
        output.write(memoryview(np.arange(3, dtype="<f4").tobytes()))
        output.write(b"")
    written = (tmp_path / "a").read_bytes()
    assert written == b"one" + np.arange(3, dtype="<f4").tobytes()
    assert (output.digest, output.size) == (hashlib.sha256(written).hexdigest(), len(written))
    assert output.written == Written(output.digest, output.size)


def test_a_full_disk_and_a_missing_folder_are_errors_for_a_person(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with (
        pytest.raises(DiskFull, match=r'^no space left on the disk while writing "/dev/full"$'),
        HashedFile(full) as output,
    ):
        output.write(b"one")
    missing = HashedFile(tmp_path / "missing" / "a")
    with pytest.raises(StoreError, match=r'^cannot write ".*missing/a": no such file or directory$'), missing:
        pass


def test_a_planned_file_is_read_and_checked_before_it_is_written(tmp_path: Path) -> None:
    laid_out = writer.layout(FIELDS, TENSORS)
    planned = gguf.read_planned(laid_out.header, laid_out.size, tmp_path / "planned.gguf")
    written = gguf.read(write(tmp_path / "written.gguf", FIELDS, TENSORS))
    assert (planned.tensors, planned.metadata, planned.size) == (written.tensors, written.metadata, written.size)
    assert planned.values("tokenizer.ggml.tokens") == written.values("tokenizer.ggml.tokens")
    wrong = FIELDS | {"llama.block_count": writer.encode(ValueType.UINT32, 0)}
    with pytest.raises(ModelFileError, match="block_count"):
        gguf.read_planned(writer.layout(wrong, TENSORS).header, laid_out.size, tmp_path / "planned.gguf")
