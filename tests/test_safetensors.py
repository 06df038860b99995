"""The safetensors format: what is read of a good file, and a sentence for each way that a file can be wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from corral.convert import safetensors
from corral.errors import ModelFileError
from tests.safetensors_bytes import write_file

NAME = "model.safetensors"


def entry(dtype: Any = "F32", shape: Any = (2,), begin: Any = 0, end: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = {"a": entry()}

WRONG: dict[str, tuple[bytes, bytes, str]] = {
    "not JSON": (b"{", b"", f'the header of "{NAME}" is not JSON'),
    "not UTF-8": (b'{"\xff": 1}', b"", f'the header of "{NAME}" is not JSON'),
    "nested without end": (b"[" * 100_000, b"", f'the header of "{NAME}" is not JSON'),
    "a number too long": (b'{"a": ' + b"9" * 5000 + b"}", b"", f'the header of "{NAME}" is not JSON'),
    "a list": (b"[]", b"", f'the header of "{NAME}" is not a JSON object'),
    "metadata of numbers": (
        b'{"__metadata__": {"a": 1}}',
        b"",
        f'"__metadata__" of "{NAME}" is not an object of texts',
    ),
    "twice": (
        b'{"a": ' + json.dumps(entry()).encode() + b', "a": ' + json.dumps(entry()).encode() + b"}",
        bytes(8),
        f'"{NAME}" has "a" twice in its header',
    ),
    "no name": (
        json.dumps({"": entry()}).encode(),
        bytes(8),
        f'"{NAME}" has the tensor name "", which no tensor can have',
    ),
    "a long name": (
        json.dumps({"a" * 600: entry()}).encode(),
        bytes(8),
        f'"{NAME}" has the tensor name "' + "a" * 119 + '…", which no tensor can have',
    ),
    "a name with NUL": (
        json.dumps({"a\0b": entry()}).encode(),
        bytes(8),
        f'"{NAME}" has the tensor name "a\\x00b", which no tensor can have',
    ),
    "no shape": (
        b'{"a": {"dtype": "F32", "data_offsets": [0, 8]}}',
        bytes(8),
        f'tensor "a" of "{NAME}" is not described by dtype, shape and data_offsets',
    ),
    "an unknown type": (json.dumps({"a": entry("F4")}).encode(), bytes(8), "unknown data type: F4"),
    "a type that is a number": (json.dumps({"a": entry(7)}).encode(), bytes(8), "unknown data type: 7"),
    "a negative dimension": (
        json.dumps({"a": entry(shape=(-2,))}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has a shape that no tensor can have',
    ),
    "a dimension that is true": (
        json.dumps({"a": entry(shape=(True, 2))}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has a shape that no tensor can have',
    ),
    "many dimensions": (
        json.dumps({"a": entry(shape=[1] * 9)}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has a shape that no tensor can have',
    ),
    "an enormous dimension": (
        json.dumps({"a": entry(shape=(1 << 50, 1 << 50))}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has a shape that no tensor can have',
    ),
    "a text for an offset": (
        json.dumps({"a": entry(begin="0")}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has data_offsets that are not a beginning and an end',
    ),
    "an end before the beginning": (
        json.dumps({"a": entry(begin=8, end=0)}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has data_offsets that are not a beginning and an end',
    ),
    "a lying shape": (
        json.dumps({"a": entry(shape=(3,))}).encode(),
        bytes(8),
        f'tensor "a" of "{NAME}" has 8 bytes, which is not its shape [3] in F32',
    ),
    "overlapping": (
        json.dumps({"a": entry(), "b": entry(begin=4, end=12)}).encode(),
        bytes(12),
        f'tensor "b" of "{NAME}" begins within another tensor',
    ),
    "a hole": (
        json.dumps({"a": entry(), "b": entry(begin=12, end=20)}).encode(),
        bytes(20),
        f'"{NAME}" has 4 bytes that belong to no tensor',
    ),
    "bytes left over": (json.dumps(GOOD).encode(), bytes(9), f'"{NAME}" has 1 bytes that belong to no tensor'),
}


@pytest.mark.parametrize(("header", "data", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path: Path, header: bytes, data: bytes, sentence: str) -> None:
    path = write_file(tmp_path / NAME, header, data)
    with pytest.raises(ModelFileError) as raised:
        safetensors.read(path, NAME)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", f'"{NAME}" has 0 bytes, too few for a safetensors file'),
        (b"\x01\0\0", f'"{NAME}" has 3 bytes, too few for a safetensors file'),
        (b"\xff" * 8, f'"{NAME}" claims a header of {2**64 - 1} bytes, more than {safetensors.MAX_HEADER}'),
        (b"\x08" + bytes(7) + b"{}", f'"{NAME}" claims a header of 8 bytes, but has 2 after its length'),
    ],
)
def test_a_lying_length_is_refused_before_anything_is_read(tmp_path: Path, raw: bytes, sentence: str) -> None:
    (tmp_path / NAME).write_bytes(raw)
    with pytest.raises(ModelFileError) as raised:
        safetensors.read(tmp_path / NAME, NAME)
    assert str(raised.value) == sentence


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / NAME, json.dumps(GOOD).encode(), bytes(7))
    with pytest.raises(ModelFileError, match=r'tensor "a" of "model.safetensors" ends at .*, after the .* bytes'):
        safetensors.read(path, NAME)


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    if what == "folder":
        (tmp_path / NAME).mkdir()
    with pytest.raises(ModelFileError, match=NAME):
        safetensors.read(tmp_path / NAME, NAME)


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    path = write_file(tmp_path / NAME, json.dumps(GOOD).encode(), bytes(8))
    (tensor,) = safetensors.read(path, NAME)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r'"model.safetensors" became shorter while tensor "a" was read'):
        tensor.read(0, 8)


def test_what_the_formats_own_library_writes_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "a": random.normal(size=(3, 5)).astype(np.float16),
        "b.c": random.normal(size=7).astype(np.float32),
    }
    arrays["none"] = np.empty((0, 4), np.float32)
    save_file(arrays, tmp_path / NAME, metadata={"format": "pt"})
    found = {tensor.name: tensor for tensor in safetensors.read(tmp_path / NAME, NAME)}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].read(0, array.nbytes).tobytes() == array.tobytes()
    assert found["a"].read(10, 4).tobytes() == arrays["a"].tobytes()[10:14]


@given(header=st.binary(max_size=200), data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(header + data)
    try_reading(path)
    try_reading(write_file(path, header, data))


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    entries=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__", "\0"]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "X"]) | _VALUES,
                "shape": st.lists(st.integers(-1, 3), max_size=3) | _VALUES,
                "data_offsets": st.lists(st.integers(-1, 20), min_size=2, max_size=2) | _VALUES,
            }
        )
        | _VALUES,
    ),
    size=st.integers(0, 30),
)
def test_any_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Any], size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    try_reading(write_file(path, json.dumps(entries).encode(), bytes(size)))


def try_reading(path: Path) -> None:
    """Reads the file, and what is in it when it is well-formed: its tensors are all of its data."""
    try:
        found = safetensors.read(path, NAME)
    except ModelFileError:
        return
    assert sum(len(tensor.read(0, tensor.size)) for tensor in found) <= path.stat().st_size
