"""Whatever a file's bytes are: it is read, or refused with a sentence. Nothing else ever comes out of reading it."""

import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corral import gguf
from corral.errors import ModelFileError
from tests.conftest import RANDOM_CASES
from tests.gguf_bytes import ARRAY, BOOL, CODES, F32, F64, STRING, U64, ArrayOf, FakeTensor, Header
from tests.tiny_models import tiny_bert, tiny_llama, tiny_llava

TinyFiles = list[tuple[bytes, int]]

many = settings(max_examples=RANDOM_CASES or 400, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(path: Path, content: bytes) -> gguf.GGUF | None:
    """Reads a file and asks it everything; None if it is refused."""
    path.write_bytes(content)
    try:
        file = gguf.read(path)
    except ModelFileError as error:
        sentence = str(error)
    else:
        ask_everything(file)
        return file
    assert sentence.isprintable()
    return None


def ask_everything(file: gguf.GGUF) -> None:
    """Whatever a file says of itself, its answers are within bounds."""
    file.model_info(verbose=True)
    assert file.kind in ("model", "projector", "adapter")
    assert file.capabilities
    assert file.kv_bytes_per_token() >= 0
    assert file.split is None or 0 <= file.split[0] < file.split[1]
    assert all(file.data_offset <= tensor.offset <= file.size - tensor.size for tensor in file.tensors)
    assert file.weights_bytes <= file.size
    assert all(number is None or number < file.vocabulary_size for number in (file.bos_token_id, file.eos_token_id))


@many
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    assert gguf.looks_like_gguf(content) or read_or_refuse(tmp_path / "file", content) is None


@many
@given(st.sampled_from([b"GGUF", b"FUGG"]), st.integers(1, 3), st.integers(0, 5), st.integers(0, 5), st.binary())
def test_random_bytes_after_a_right_header_are_read_or_refused(
    tmp_path: Path, magic: bytes, version: int, tensors: int, keys: int, rest: bytes
) -> None:
    counts = struct.pack("<II" if version == 1 else "<QQ", tensors, keys)
    read_or_refuse(tmp_path / "file", magic + struct.pack("<I", version) + counts + rest)


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> TinyFiles:
    """Whole models whose bytes the tests change, with the lengths of their headers."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_llava(folder / "model", folder / "projector")
    paths = [tiny_llama(folder / "llama"), tiny_bert(folder / "bert"), folder / "projector"]
    return [(path.read_bytes(), gguf.read(path).data_offset) for path in paths]


NUMBERS = [0, 1, 2, 3, 4, 8, 9, 12, 13, 31, 32, 63, 64, 255, 256, 65535, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1]


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[float, int, int]]:
    """Places within the header, as a share of it, with what to write there and how wide."""
    place = st.floats(0, 1, exclude_max=True)
    return draw(
        st.lists(st.tuples(place, st.sampled_from(NUMBERS), st.sampled_from([1, 4, 8])), min_size=1, max_size=4)
    )


def mutate(content: bytes, header: int, changes: list[tuple[float, int, int]]) -> bytes:
    changed = bytearray(content)
    for place, number, width in changes:
        at = int(place * header)
        changed[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(changed)


@many
@given(st.integers(0, 2), mutations(), st.floats(0, 2))
@example(0, [(0.0, 0, 8)], 2.0)
def test_a_changed_model_is_read_or_refused(
    tmp_path: Path, tiny_files: TinyFiles, which: int, changes: list[tuple[float, int, int]], kept: float
) -> None:
    content = mutate(*tiny_files[which], changes)
    read_or_refuse(tmp_path / "file", content[: int(kept * len(content))] if kept < 1 else content)


texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.sampled_from("abcdefghij._-0123456789é"), min_size=1, max_size=40)


def numbers(kind: int) -> st.SearchStrategy[Any]:
    if kind == BOOL:
        return st.booleans()
    if kind in (F32, F64):
        return st.floats(width=32 if kind == F32 else 64, allow_nan=False)
    width = 8 * struct.calcsize("<" + CODES[kind])
    return (
        st.integers(-(1 << width - 1), (1 << width - 1) - 1)
        if CODES[kind].islower()
        else st.integers(0, (1 << width) - 1)
    )


def values(kind: int) -> st.SearchStrategy[Any]:
    return texts if kind == STRING else numbers(kind)


kinds = st.sampled_from([*CODES, STRING])
arrays: st.SearchStrategy[ArrayOf] = st.deferred(
    lambda: st.one_of(
        kinds.flatmap(lambda kind: st.lists(values(kind), max_size=5).map(lambda found: ArrayOf(kind, found))),
        st.lists(arrays, max_size=3).map(lambda found: ArrayOf(ARRAY, found)),
    )
)


def depth(array: ArrayOf) -> int:
    return 1 + max((depth(one) for one in array.elements), default=0) if array.kind == ARRAY else 1


keys = st.one_of(
    kinds.flatmap(lambda kind: st.tuples(st.just(kind), values(kind))),
    st.tuples(st.just(ARRAY), arrays.filter(lambda array: depth(array) <= 4)),
)


@many
@given(st.dictionaries(names.map("x.{}".format), keys, max_size=8), st.integers(1, 3), st.sampled_from("<>"))
def test_what_is_written_is_read(tmp_path: Path, written: dict[str, tuple[int, Any]], version: int, order: Any) -> None:
    header = Header([(key, kind, value) for key, (kind, value) in written.items()], version=version, order=order)
    (tmp_path / "file").write_bytes(header.encode())
    file = gguf.read(tmp_path / "file")
    assert list(file.metadata) == list(written)
    for key, (kind, value) in written.items():
        assert same(file.values(key), plain(value)) if kind == ARRAY else same(file.metadata[key], value)


def plain(value: Any) -> Any:
    return [plain(element) for element in value.elements] if isinstance(value, ArrayOf) else value


def same(read: Any, written: Any) -> bool:
    """Equal, and floats as near as 32 bits allow."""
    if isinstance(written, list):
        return len(read) == len(written) and all(map(same, read, written))
    if isinstance(written, float):
        return bool(read == pytest.approx(written, rel=1e-7, abs=1e-45))
    return type(read) is type(written) and bool(read == written)


shapes = st.lists(st.integers(1, 1 << 34), max_size=4)


@many
@given(shapes, st.integers(0, 45), st.integers(0, 1 << 64).map(lambda number: number & ~31 & ((1 << 64) - 1)))
def test_a_tensor_that_is_accepted_lies_within_the_file(
    tmp_path: Path, shape: list[int], kind: int, offset: int
) -> None:
    header = Header([("x", U64, 1)], [FakeTensor("w", shape, kind, offset)], bytes(256))
    file = read_or_refuse(tmp_path / "file", header.encode())
    if file is not None:
        assert 0 < file.tensors[0].size <= 256


ENGINE = """
import ctypes, sys
import xllamacpp.xllamacpp

class Parameters(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]

engine = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
engine.gguf_init_from_file.argtypes = [ctypes.c_char_p, Parameters]
engine.gguf_init_from_file.restype = ctypes.c_void_p
for name in ("gguf_get_n_kv", "gguf_get_n_tensors"):
    getattr(engine, name).argtypes = [ctypes.c_void_p]
    getattr(engine, name).restype = ctypes.c_int64
engine.gguf_free.argtypes = [ctypes.c_void_p]
for path in sys.stdin:
    found = engine.gguf_init_from_file(path.strip().encode(), Parameters(True, None))
    if found:
        print(engine.gguf_get_n_kv(found), engine.gguf_get_n_tensors(found))
        engine.gguf_free(found)
    else:
        print("refused")
"""


def test_what_is_accepted_here_is_read_or_refused_by_the_engine(tmp_path: Path, tiny_files: TinyFiles) -> None:
    source = random.Random(1)
    accepted: dict[str, str] = {}
    for number in range(2000):
        changes = [(source.random(), source.choice(NUMBERS), source.choice([1, 4, 8]))]
        path = tmp_path / f"{number}.gguf"
        file = read_or_refuse(path, mutate(*tiny_files[number % 3], changes))
        if file is None:
            path.unlink()
        else:
            accepted[str(path)] = f"{len(file.metadata)} {len(file.tensors)}"
    command = [sys.executable, "-c", ENGINE]
    answer = subprocess.run(command, input="\n".join(accepted), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-2000:]
    answers = answer.stdout.splitlines()
    assert len(answers) == len(accepted) > 200
    assert all(theirs in (ours, "refused") for ours, theirs in zip(accepted.values(), answers, strict=True))
    assert answers.count("refused") < len(answers) / 2
