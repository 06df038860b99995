"""Reading GGUF files: what is right is read right, and for each rule there is a file that breaks it."""

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as reference
import pytest
import xllamacpp.xllamacpp

from corral import gguf
from corral.errors import ModelFileError
from corral.gguf.types import TENSOR_TYPES, ValueType
from tests.gguf_bytes import ARRAY, BOOL, F32, F64, I32, STRING, U8, U32, U64, ArrayOf, FakeTensor, Header, Raw
from tests.tiny_models import CHATML, tiny_bert, tiny_llama, tiny_llava

Write = Callable[[Header | bytes], Path]

ARCHITECTURE = ("general.architecture", STRING, "llama")
HUGE = (1 << 64) - 1


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path."""

    def write_file(content: Header | bytes) -> Path:
        path = tmp_path / "file.gguf"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def refusal(path: Path) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(ModelFileError) as raised:
        gguf.read(path)
    return str(raised.value)


EVERY_TYPE = [
    ARCHITECTURE,
    ("a.uint8", 0, 255),
    ("a.int8", 1, -128),
    ("a.uint16", 2, 65535),
    ("a.int16", 3, -32768),
    ("a.uint32", 4, 4294967295),
    ("a.int32", 5, -2147483648),
    ("a.float32", F32, 0.1),
    ("a.bool", BOOL, True),
    ("a.string", STRING, "Größe\n日本"),
    ("a.uint64", U64, HUGE),
    ("a.int64", 11, -(1 << 63)),
    ("a.float64", F64, 0.1),
    ("a.numbers", ARRAY, ArrayOf(U32, [1, 2, 3])),
    ("a.floats", ARRAY, ArrayOf(F32, [0.1, 1e30, -5.0, 16777217.0])),
    ("a.strings", ARRAY, ArrayOf(STRING, ["x", "", b"\xff\xfe"])),
    ("a.nested", ARRAY, ArrayOf(ARRAY, [ArrayOf(STRING, ["y"]), ArrayOf(U8, [7, 8])])),
    ("a.empty", ARRAY, ArrayOf(BOOL, [])),
]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(("order", "magic"), [("<", b"GGUF"), (">", b"GGUF"), (">", b"FUGG")])
def test_every_value_type_is_read_in_each_version_and_byte_order(
    write: Write, version: int, order: Any, magic: bytes
) -> None:
    tensors = [FakeTensor("w", (2, 3)), FakeTensor("q", (32, 1), kind=8, offset=32)]
    header = Header(EVERY_TYPE, tensors, bytes(96), version=version, order=order, magic=magic)
    file = gguf.read(write(header))
    assert (file.version, file.big_endian) == (version, order == ">")
    scalars = {key: value for key, value in file.metadata.items() if not isinstance(value, gguf.Array)}
    assert scalars == {key: value for key, kind, value in EVERY_TYPE if kind != ARRAY}
    assert {key: file.types[key] for key in file.types} == {key: ValueType(kind) for key, kind, _ in EVERY_TYPE}
    assert file.values("a.numbers") == [1, 2, 3]
    assert file.values("a.floats") == [0.1, 1e30, -5.0, 16777216.0]
    assert file.values("a.strings") == ["x", "", "\ufffd\ufffd"]
    assert file.values("a.nested") == [["y"], [7, 8]]
    assert file.values("a.empty") == []
    start = file.data_offset
    assert file.tensors == (
        gguf.Tensor("w", "F32", (2, 3), start, 24),
        gguf.Tensor("q", "Q8_0", (32, 1), start + 32, 34),
    )
    assert file.size == start + 96


def test_the_alignment_of_the_file_is_used(write: Write) -> None:
    keys = [ARCHITECTURE, ("general.alignment", U32, 256)]
    tensors = [FakeTensor("a"), FakeTensor("b", offset=256)]
    file = gguf.read(write(Header(keys, tensors, bytes(512), alignment=256)))
    assert (file.data_offset % 256, [tensor.offset - file.data_offset for tensor in file.tensors]) == (0, [0, 256])


def test_a_scalar_tensor_has_one_element(write: Write) -> None:
    (tensor,) = gguf.read(write(Header([ARCHITECTURE], [FakeTensor("s", ())], bytes(4)))).tensors
    assert (tensor.shape, tensor.elements, tensor.size) == ((), 1, 4)


def test_a_file_without_anything_is_a_file(write: Write) -> None:
    file = gguf.read(write(Header()))
    assert (file.tensors, dict(file.metadata), file.architecture) == ((), {}, "unknown")


def one_key(kind: int, value: Any, **more: Any) -> Header:
    return Header([ARCHITECTURE, ("x", kind, value)], **more)


def one_tensor(data: int = 4096, **wrong: Any) -> Header:
    return Header([ARCHITECTURE], [FakeTensor("w", **wrong)], bytes(data))


BROKEN: dict[str, tuple[Header | bytes, str]] = {
    "empty": (b"", "invalid file magic"),
    "other magic": (b"ggml" + bytes(100), "invalid file magic"),
    "only magic": (b"GGUF", "the file ends within its header"),
    "version 0": (Header(version=0), "unsupported GGUF version 0"),
    "version 4": (Header(version=4), "unsupported GGUF version 4"),
    "no counts": (b"GGUF\x03\0\0\0" + bytes(12), "the header needs 8 bytes, but the file ends after 4"),
    "huge key count": (Header(key_count=HUGE), f"key count {HUGE} is more than 65536"),
    "huge tensor count": (Header(tensor_count=HUGE), f"tensor count {HUGE} is more than 65536"),
    "keys beyond the end": (
        Header([ARCHITECTURE], key_count=60000),
        "key count 60000 cannot fit into the 45 bytes that follow",
    ),
    "tensors beyond the end": (
        Header([ARCHITECTURE], tensor_count=60000),
        "tensor count 60000 cannot fit into the 45 bytes that follow",
    ),
    "one key too many": (Header([ARCHITECTURE], key_count=2), "key 1 needs 8 bytes, but the file ends after 0"),
    "empty key": (Header([("", U8, 1)]), "the name of key 0 has 0 bytes instead of 1 to 65535"),
    "long key": (Header([("k" * 65536, U8, 1)]), "the name of key 0 has 65536 bytes instead of 1 to 65535"),
    "key not UTF-8": (Header([(b"\xff", U8, 1)]), "the name of key 0 is not UTF-8"),
    "key with NUL": (Header([(b"x\0y", U8, 1)]), "the name of key 0 has characters that cannot be printed"),
    "key twice": (Header([("x", U8, 1), ("x", U8, 2)]), 'key "x" is there twice'),
    "unknown value type": (one_key(13, Raw(b"1234")), 'key "x" has the unknown value type 13'),
    "huge value type": (one_key(0xFFFFFFFF, Raw()), 'key "x" has the unknown value type 4294967295'),
    "scalar cut off": (one_key(U64, Raw(b"123")), 'key "x" needs 8 bytes, but the file ends after 3'),
    "string length overflow": (
        one_key(STRING, Raw(struct.pack("<Q", HUGE))),
        f'a string of key "x" has {HUGE} bytes, more than 16777216',
    ),
    "string longer than the file": (
        one_key(STRING, Raw(struct.pack("<Q", 1 << 20) + b"abc")),
        'key "x" needs 1048576 bytes, but the file ends after 3',
    ),
    "unknown element type": (one_key(ARRAY, ArrayOf(99, [], 0)), 'key "x" has the unknown value type 99'),
    "huge array": (
        one_key(ARRAY, ArrayOf(U8, [], HUGE)),
        f'key "x" has an array of {HUGE} elements, more than 67108864',
    ),
    "array longer than the file": (
        one_key(ARRAY, ArrayOf(U64, [], 1 << 20)),
        'key "x" needs 8388608 bytes, but the file ends after 0',
    ),
    "more strings than bytes": (
        one_key(ARRAY, ArrayOf(STRING, ["a"], 1 << 20)),
        'key "x" has an array of 1048576 elements, which cannot fit into the 9 bytes that follow',
    ),
    "string in array too long": (
        one_key(ARRAY, ArrayOf(STRING, [], 1)).encode() + struct.pack("<Q", HUGE),
        f'a string of key "x" has {HUGE} bytes, more than 16777216',
    ),
    "string in array beyond the end": (
        one_key(ARRAY, ArrayOf(STRING, [], 2)).encode() + struct.pack("<QQ", 0, 9) + b"abc",
        'key "x" needs 9 bytes, but the file ends after 3',
    ),
    "more arrays than bytes": (
        one_key(ARRAY, ArrayOf(ARRAY, [], 1 << 20)),
        'key "x" has an array of 1048576 elements, which cannot fit into the 0 bytes that follow',
    ),
    "alignment 0": (Header([("general.alignment", U32, 0)]), "is 0, not a power of two up to 1048576"),
    "alignment 24": (Header([("general.alignment", U32, 24)]), "is 24, not a power of two up to 1048576"),
    "huge alignment": (
        Header([("general.alignment", U32, 1 << 31)]),
        "is 2147483648, not a power of two up to 1048576",
    ),
    "alignment a string": (
        Header([("general.alignment", STRING, "32")]),
        'key "general.alignment" is not a 32-bit number',
    ),
    "alignment of 64 bits": (
        Header([("general.alignment", U64, 32)]),
        'key "general.alignment" is not a 32-bit number',
    ),
    "tensor without a name": (
        Header(tensors=[FakeTensor("")], data=bytes(64)),
        "the name of tensor 0 has 0 bytes instead of 1 to 63",
    ),
    "long tensor name": (
        Header(tensors=[FakeTensor("w" * 64)], data=bytes(64)),
        "the name of tensor 0 has 64 bytes instead of 1 to 63",
    ),
    "tensor name with NUL": (
        Header(tensors=[FakeTensor("w\0x")], data=bytes(64)),
        "the name of tensor 0 has characters that cannot be printed",
    ),
    "tensor name not UTF-8": (
        Header(tensors=[FakeTensor(b"\xc3")], data=bytes(64)),
        "the name of tensor 0 is not UTF-8",
    ),
    "tensor twice": (
        Header(tensors=[FakeTensor("w"), FakeTensor("w", offset=32)], data=bytes(64)),
        'tensor "w" is there twice',
    ),
    "five dimensions": (one_tensor(shape=(1, 1, 1, 1, 1)), 'tensor "w" has 5 dimensions, more than 4'),
    "huge number of dimensions": (one_tensor(dimensions=0xFFFFFFFF), "has 4294967295 dimensions, more than 4"),
    "dimension 0": (one_tensor(shape=(4, 0)), 'tensor "w" has the shape [4, 0]: no dimension may be 0'),
    "product overflow": (
        one_tensor(shape=(1 << 32, 1 << 32, 1 << 32, 4)),
        "has the shape [4294967296, 4294967296, 4294967296, 4], more than any file can hold",
    ),
    "product wraps to 0": (one_tensor(shape=(1 << 32, 1 << 32)), "more than any file can hold"),
    "size overflow": (one_tensor(shape=(1 << 62,)), f"offset+size ({128 + (1 << 64)}) exceeds file size (4224)"),
    "unknown tensor type": (one_tensor(kind=5), 'tensor "w" has the unknown type 5'),
    "the first form of MXFP4": (one_tensor(kind=4), "which only the first files of gpt-oss had: pull the model again"),
    "huge tensor type": (one_tensor(kind=0xFFFFFFFF), 'tensor "w" has the unknown type 4294967295'),
    "half a block": (one_tensor(shape=(48,), kind=8), "rows of 48 elements, which Q8_0 cannot divide into 32s"),
    "half a large block": (one_tensor(shape=(128, 2), kind=12), "rows of 128 elements, which Q4_K cannot divide"),
    "crooked offset": (one_tensor(offset=8), 'tensor "w" begins at 8, which is not a multiple of 32'),
    "offset overflow": (
        one_tensor(offset=HUGE - 31),
        f'tensor "w" offset+size ({128 + HUGE - 31 + 16}) exceeds file size (4224)',
    ),
    "offset past the end": (one_tensor(offset=4096), 'tensor "w" offset+size (4240) exceeds file size (4224)'),
    "data missing": (one_tensor(data=0), 'tensor "w" offset+size (144) exceeds file size (102)'),
    "one byte missing": (one_tensor(data=15), 'tensor "w" offset+size (144) exceeds file size (143)'),
    "overlap": (
        Header(tensors=[FakeTensor("b", (9,), offset=0), FakeTensor("a", (4,), offset=32)], data=bytes(64)),
        'tensor "a" begins within tensor "b"',
    ),
    "same place": (
        Header(tensors=[FakeTensor("a"), FakeTensor("b")], data=bytes(64)),
        'tensor "b" begins within tensor "a"',
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_breaks_a_rule_is_refused_by_name(write: Write, case: str) -> None:
    content, sentence = BROKEN[case]
    assert sentence in refusal(write(content))


def nested(depth: int) -> ArrayOf:
    return ArrayOf(U8, [1]) if depth == 1 else ArrayOf(ARRAY, [nested(depth - 1)])


def test_arrays_nest_four_deep_and_no_deeper(write: Write) -> None:
    assert gguf.read(write(one_key(ARRAY, nested(4)))).values("x") == [[[[1]]]]
    assert refusal(write(one_key(ARRAY, nested(5)))) == 'key "x" has arrays nested deeper than 4'
    bomb = Raw(struct.pack("<IQ", ARRAY, 1) * 200_000)
    assert refusal(write(one_key(ARRAY, bomb))) == 'key "x" has arrays nested deeper than 4'


def test_what_can_only_be_walked_over_is_limited(write: Write) -> None:
    arrays = one_key(ARRAY, ArrayOf(ARRAY, [], 300_000)).encode() + bytes(12 * 300_000)
    assert refusal(write(arrays)) == 'key "x" has an array of 300000 elements: more than can be checked'
    strings = one_key(ARRAY, ArrayOf(STRING, [], 5_000_000)).encode() + bytes(8 * 5_000_000)
    assert refusal(write(strings)) == 'key "x" has an array of 5000000 elements: more than can be checked'


def test_text_kept_in_memory_is_limited(write: Write) -> None:
    long = "x" * (13 << 20)
    keys = [(f"key.{number}", STRING, long) for number in range(5)]
    assert refusal(write(Header(keys))) == f'key "key.4" brings the metadata\'s text to more than {64 << 20} bytes'


def test_only_files_are_read(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f'"{tmp_path}" is not a file'
    assert refusal(tmp_path / "none") == f'cannot read "{tmp_path / "none"}": No such file or directory'
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo") == f'"{tmp_path / "fifo"}" is not a file'
    assert refusal(Path("/dev/zero")) == '"/dev/zero" is not a file'


def test_a_file_cut_short_after_reading_is_an_error_and_no_crash(write: Write) -> None:
    path = write(one_key(ARRAY, ArrayOf(STRING, ["abc"] * 1000)))
    file = gguf.read(path)
    os.truncate(path, 500)
    with pytest.raises(ModelFileError, match='the file became shorter while key "x" was read'):
        file.values("x")
    path.unlink()
    with pytest.raises(ModelFileError, match="No such file or directory"):
        file.values("x")


def test_every_truncation_of_a_model_is_refused(tmp_path: Path, write: Write) -> None:
    whole = Header(EVERY_TYPE, [FakeTensor("w", (2, 3))], bytes(24)).encode()
    for length in range(len(whole)):
        assert refusal(write(whole[:length]))
    gguf.read(write(whole))


def test_magic_is_recognised() -> None:
    assert gguf.looks_like_gguf(b"GGUF\3\0\0\0")
    assert gguf.looks_like_gguf(b"FUGG")
    assert not gguf.looks_like_gguf(b"GGU")
    assert not gguf.looks_like_gguf(b"ggla\1\0\0\0")


def test_the_reference_implementation_reads_the_same(tmp_path: Path) -> None:
    paths = [tiny_llama(tmp_path / "llama.gguf", chat_template=CHATML), tiny_bert(tmp_path / "bert.gguf")]
    tiny_llava(tmp_path / "model.gguf", tmp_path / "projector.gguf")
    for path in (*paths, tmp_path / "projector.gguf"):
        ours, theirs = gguf.read(path), reference.GGUFReader(path)
        assert [(t.name, t.type, list(t.shape), t.offset, t.size) for t in ours.tensors] == [
            (t.name, t.tensor_type.name, t.shape.tolist(), t.data_offset, t.n_bytes) for t in theirs.tensors
        ]
        for key, field in theirs.fields.items():
            if not key.startswith("GGUF."):
                value = ours.metadata[key]
                read = ours.values(key) if isinstance(value, gguf.Array) else value
                assert read == pytest.approx(field.contents()), key
        assert len(ours.metadata) == sum(not key.startswith("GGUF.") for key in theirs.fields)


def test_tensor_types_are_the_engines() -> None:
    engine = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    engine.ggml_type_name.restype = ctypes.c_char_p
    engine.ggml_blck_size.restype = ctypes.c_int64
    engine.ggml_type_size.restype = ctypes.c_size_t
    ours = {number: (kind.name.lower(), kind.block, kind.block_bytes) for number, kind in TENSOR_TYPES.items()}
    theirs = {
        number: (
            engine.ggml_type_name(number).decode().lower(),
            engine.ggml_blck_size(number),
            engine.ggml_type_size(number),
        )
        for number in range(max(TENSOR_TYPES) + 1)
        if engine.ggml_blck_size(number)
    }
    assert ours == theirs


def test_a_vocabulary_of_a_quarter_million_takes_little_memory(write: Write) -> None:
    count = 256_000
    keys = [
        ("tokenizer.ggml.tokens", ARRAY, ArrayOf(STRING, [f"token{number}" for number in range(count)])),
        ("tokenizer.ggml.scores", ARRAY, ArrayOf(F32, [0.0] * count)),
        ("tokenizer.ggml.token_type", ARRAY, ArrayOf(I32, [1] * count)),
    ]
    path = write(Header([ARCHITECTURE, *keys]))
    script = (
        "import sys, tracemalloc, json; from pathlib import Path; from corral import gguf\n"
        "tracemalloc.start()\n"
        "file = gguf.read(Path(sys.argv[1]))\n"
        "print(json.dumps([file.vocabulary_size, tracemalloc.get_traced_memory()[1]]))"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=True, text=True)
    vocabulary, peak = json.loads(answer.stdout)
    assert vocabulary == count
    assert peak < 4 << 20


def test_the_real_model_is_read(starter_gguf: Path) -> None:
    file = gguf.read(starter_gguf)
    assert file.architecture == "llama"
    assert file.file_type == "Q4_1"
    assert file.parameter_count == 134_515_008
    assert len(file.tensors) == 272
    assert file.weights_bytes + file.data_offset == file.size == 98_362_432
    assert {tensor.type for tensor in file.tensors} == {"F32", "Q4_1", "Q8_0"}
    assert file.values("tokenizer.ggml.tokens")[300:303] == ["om", "il", "st"]
    assert len(file.values("tokenizer.ggml.merges")) == 48_900
