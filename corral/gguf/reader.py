"""Reading a GGUF file as one from a stranger: everything it claims is checked before it is relied on.

Source of the limits: spec cli §17, and the engine's own where they are narrower. Whatever the bytes are, `read`
returns or raises `ModelFileError`, within seconds and some tens of megabytes: arrays are walked over, not read, and
every count is held against the bytes that are left. Sense of the numbers is `sanity`'s business.
"""

import io
import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from corral.errors import ModelFileError
from corral.gguf import sanity
from corral.gguf.adapter import check_adapter
from corral.gguf.chat_template import check_chat_templates
from corral.gguf.cursor import ByteOrder, Cursor, CutShortError
from corral.gguf.file import GGUF, Array, Tensor, Value
from corral.gguf.projector import check_projector
from corral.gguf.shapes import check_shapes
from corral.gguf.types import (
    DEFAULT_ALIGNMENT,
    EARLY_MXFP4,
    MAGIC,
    MAGIC_BIG_ENDIAN,
    TENSOR_TYPES,
    WIDTHS,
    ValueType,
)
from corral.gguf.vocabulary import check_vocabulary
from corral.gguf.weights import check_types

MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ARRAY = 64 << 20
MAX_ARRAY_DEPTH = 4
MAX_WALKED = 4 << 20
"""Strings in all arrays together: they cannot be skipped at once, only walked over, at about 0.2 µs each."""
INNER_ARRAY_COST = 16
"""How many strings an array within an array counts as, for the time it takes."""
MAX_TEXT = 64 << 20
"""Bytes of all keys and single strings together: these are kept in memory."""
MAX_ALIGNMENT = 1 << 20

RULES = "1"
"""The version of `check_new`'s rules: a file that was checked by another one is checked again before it is loaded."""

_MAX_COUNT = (1 << 63) - 1


def looks_like_gguf(first_bytes: bytes) -> bool:
    """Whether a file that begins so claims to be a GGUF file."""
    return first_bytes[:4] in (MAGIC, MAGIC_BIG_ENDIAN)


def read(path: Path) -> GGUF:
    """The file's metadata and tensor list, every claim in it checked against the file; `ModelFileError` otherwise."""
    found = read_structure(path)
    check(found)
    return found


def read_structure(path: Path) -> GGUF:
    """The same without `check`: what is read lies within the file, and may make no sense to an engine."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening, which would wait for a pipe's other end
            raise ModelFileError(f'"{path}" is not a file')
        with open(path, "rb") as file:
            found = _Reader(file, os.fstat(file.fileno()).st_size).read(path)
    except OSError as error:
        raise ModelFileError(f'cannot read "{path}": {error.strerror}') from error
    return found


def read_planned(header: bytes, size: int, path: Path) -> GGUF:
    """A file that is to be written, by its header and the size it will have; all as `read` checks it.

    `path` is only what errors name. Arrays are read out of `header`, which the result holds.
    """
    found = _Reader(io.BytesIO(header), size).read(path)
    found = msgspec.structs.replace(found, contents=lambda: header)
    check(found)
    return found


def check(file: GGUF) -> None:
    """Raises `ModelFileError` for what would end the engine's process."""
    sanity.check(file)
    check_types(file)
    check_projector(file)
    check_adapter(file)


def read_beginning(path: Path, size: int) -> GGUF:
    """What the first bytes of a file say of it, the file itself having `size` bytes: no tensors, nor keys beyond them.

    An array is there when all of it is. `ModelFileError` for what cannot be the beginning of a GGUF file.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(file, size).read_beginning(path)
    except OSError as error:
        raise ModelFileError(f'cannot read "{path}": {error.strerror}') from error


def check_new(file: GGUF) -> None:
    """Raises `ModelFileError` for what else no model may be made of: it takes longer, or the engine would say it."""
    check_shapes(file)
    check_chat_templates(file)
    check_vocabulary(file)


class _Reader:
    """One pass over one file; holds what is used up on the way."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._size = size
        self._big_endian, self._version = _recognise(file.read(8))
        self._wide = self._version > 1
        order: ByteOrder = ">" if self._big_endian else "<"
        self._cursor = Cursor(file, size, order, wide=self._wide, position=8)
        self._walked = 0
        self._text = 0

    def read(self, path: Path) -> GGUF:
        tensor_count, key_count = self._counts()
        metadata: dict[str, Value] = {}
        types: dict[str, ValueType] = {}
        for number in range(key_count):
            key = self._key(number)
            if key in metadata:
                raise ModelFileError(f'key "{_shortened(key)}" is there twice')
            types[key], metadata[key] = self._value(key)
        alignment = _alignment(metadata.get("general.alignment"), types.get("general.alignment"))
        listed = [self._tensor(number, alignment) for number in range(tensor_count)]
        data_offset = self._cursor.position + -self._cursor.position % alignment
        return GGUF(
            path=path,
            size=self._size,
            version=self._version,
            big_endian=self._big_endian,
            alignment=alignment,
            data_offset=data_offset,
            metadata=MappingProxyType(metadata),
            types=MappingProxyType(types),
            tensors=tuple(_placed(listed, data_offset, self._size)),
        )

    def read_beginning(self, path: Path) -> GGUF:
        present = path.stat().st_size
        _, key_count = self._counts()
        metadata: dict[str, Value] = {}
        types: dict[str, ValueType] = {}
        for number in range(key_count):
            try:
                key = self._key(number)
                kind, value = self._value(key)
            except CutShortError:
                break
            if self._cursor.position > present:
                break
            metadata[key], types[key] = value, kind
        return GGUF(
            path=path,
            size=self._size,
            version=self._version,
            big_endian=self._big_endian,
            alignment=DEFAULT_ALIGNMENT,
            data_offset=present,
            metadata=MappingProxyType(metadata),
            types=MappingProxyType(types),
            tensors=(),
        )

    def _counts(self) -> tuple[int, int]:
        """How many tensors and how many keys there are."""
        tensor_count, key_count = self._cursor.length(), self._cursor.length()
        word = self._cursor.length_size
        self._check_count("tensor", tensor_count, MAX_TENSORS, smallest=word + 16)
        self._check_count("key", key_count, MAX_KEYS, smallest=word + 5)
        return tensor_count, key_count

    def _check_count(self, what: str, count: int, limit: int, smallest: int) -> None:
        if count > limit:
            raise ModelFileError(f"{what} count {count} is more than {limit}")
        if count * smallest > self._cursor.remaining:
            raise ModelFileError(f"{what} count {count} cannot fit into the {self._cursor.remaining} bytes that follow")

    def _key(self, number: int) -> str:
        self._cursor.subject = f"key {number}"
        raw = self._cursor.string()
        if not 0 < len(raw) <= MAX_KEY_BYTES:
            raise ModelFileError(f"the name of key {number} has {len(raw)} bytes instead of 1 to {MAX_KEY_BYTES}")
        self._keep(raw)
        return _name(raw, f"the name of key {number}")

    def _value(self, key: str) -> tuple[ValueType, Value]:
        self._cursor.subject = f'key "{_shortened(key)}"'
        kind = self._type()
        if kind is ValueType.STRING:
            raw = self._cursor.string()
            self._keep(raw)
            return kind, raw.decode(errors="replace")
        if kind is ValueType.ARRAY:
            return kind, self._array(depth=1)
        return kind, self._cursor.scalar(kind)

    def _array(self, depth: int) -> Array:
        """Walks over an array, to its end and no further."""
        if depth > MAX_ARRAY_DEPTH:
            raise ModelFileError(f"{self._cursor.subject} has arrays nested deeper than {MAX_ARRAY_DEPTH}")
        kind, length = self._type(), self._cursor.length()
        if length > MAX_ARRAY:
            raise ModelFileError(f"{self._cursor.subject} has an array of {length} elements, more than {MAX_ARRAY}")
        offset = self._cursor.position
        if kind in WIDTHS:
            self._cursor.skip(length * WIDTHS[kind])
        else:
            self._walk(kind, length, depth)
        return Array(kind, length, offset, self._cursor.position - offset)

    def _walk(self, kind: ValueType, length: int, depth: int) -> None:
        smallest = self._cursor.length_size + (4 if kind is ValueType.ARRAY else 0)
        if length * smallest > self._cursor.remaining:
            raise ModelFileError(
                f"{self._cursor.subject} has an array of {length} elements, "
                f"which cannot fit into the {self._cursor.remaining} bytes that follow"
            )
        self._walked += length * (INNER_ARRAY_COST if kind is ValueType.ARRAY else 1)
        if self._walked > MAX_WALKED:
            raise ModelFileError(f"{self._cursor.subject} has an array of {length} elements: more than can be checked")
        if kind is ValueType.STRING:
            self._cursor.skip_strings(length)
            return
        for _ in range(length):
            self._array(depth + 1)

    def _type(self) -> ValueType:
        number = self._cursor.uint32()
        if number > ValueType.FLOAT64:
            raise ModelFileError(f"{self._cursor.subject} has the unknown value type {number}")
        return ValueType(number)

    def _keep(self, text: bytes) -> None:
        self._text += len(text)
        if self._text > MAX_TEXT:
            raise ModelFileError(f"{self._cursor.subject} brings the metadata's text to more than {MAX_TEXT} bytes")

    def _tensor(self, number: int, alignment: int) -> Tensor:
        """One entry of the tensor list; its offset still counts from the beginning of the data."""
        self._cursor.subject = f"tensor {number}"
        raw = self._cursor.string()
        if not 0 < len(raw) <= MAX_TENSOR_NAME_BYTES:
            limits = f"1 to {MAX_TENSOR_NAME_BYTES}"
            raise ModelFileError(f"the name of tensor {number} has {len(raw)} bytes instead of {limits}")
        name = _name(raw, f"the name of tensor {number}")
        self._cursor.subject = f'tensor "{name}"'
        dimensions = self._cursor.uint32()
        if dimensions > MAX_DIMENSIONS:
            raise ModelFileError(f'tensor "{name}" has {dimensions} dimensions, more than {MAX_DIMENSIONS}')
        dimension = ValueType.UINT64 if self._wide else ValueType.UINT32
        shape = tuple(int(self._cursor.scalar(dimension)) for _ in range(dimensions))
        number_of_type, offset = self._cursor.uint32(), self._cursor.uint64()
        if number_of_type == EARLY_MXFP4:
            raise ModelFileError(
                f'tensor "{name}" has the type 4, which only the first files of gpt-oss had: pull the model again'
            )
        if number_of_type not in TENSOR_TYPES:
            raise ModelFileError(f'tensor "{name}" has the unknown type {number_of_type}')
        if offset % alignment:
            raise ModelFileError(f'tensor "{name}" begins at {offset}, which is not a multiple of {alignment}')
        return _sized(Tensor(name, TENSOR_TYPES[number_of_type].name, shape, offset, 0), number_of_type)


def _recognise(first_bytes: bytes) -> tuple[bool, int]:
    """(whether it is big-endian, version) of a file that begins so."""
    if not looks_like_gguf(first_bytes):
        raise ModelFileError("invalid file magic")
    if len(first_bytes) < 8:
        raise ModelFileError("the file ends within its header")
    little, big = int.from_bytes(first_bytes[4:], "little"), int.from_bytes(first_bytes[4:], "big")
    big_endian = first_bytes[:4] == MAGIC_BIG_ENDIAN or little & 0xFFFF == 0
    version = big if big_endian else little
    if not 1 <= version <= 3:
        raise ModelFileError(f"unsupported GGUF version {version}")
    return big_endian, version


def _alignment(value: Value | None, kind: ValueType | None) -> int:
    if value is None:
        return DEFAULT_ALIGNMENT
    if kind is not ValueType.UINT32 or not isinstance(value, int):
        raise ModelFileError('key "general.alignment" is not a 32-bit number')
    if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise ModelFileError(f'key "general.alignment" is {value}, not a power of two up to {MAX_ALIGNMENT}')
    return value


def _sized(tensor: Tensor, number_of_type: int) -> Tensor:
    """The tensor with its size in bytes, if its shape is one that such a tensor can have."""
    kind = TENSOR_TYPES[number_of_type]
    if 0 in tensor.shape:
        raise ModelFileError(f'tensor "{tensor.name}" has the shape {list(tensor.shape)}: no dimension may be 0')
    if tensor.elements > _MAX_COUNT:
        raise ModelFileError(f'tensor "{tensor.name}" has the shape {list(tensor.shape)}, more than any file can hold')
    row = tensor.shape[0] if tensor.shape else 1
    if row % kind.block:
        raise ModelFileError(
            f'tensor "{tensor.name}" has rows of {row} elements, which {kind.name} cannot divide into {kind.block}s'
        )
    size = tensor.elements // kind.block * kind.block_bytes
    return Tensor(tensor.name, tensor.type, tensor.shape, tensor.offset, size)


def _placed(listed: list[Tensor], data_offset: int, file_size: int) -> Iterable[Tensor]:
    """The tensors with offsets from the file's beginning: each inside the file, named once, none over another."""
    names: set[str] = set()
    for tensor in listed:
        end = data_offset + tensor.offset + tensor.size
        if end > file_size:
            raise ModelFileError(f'tensor "{tensor.name}" offset+size ({end}) exceeds file size ({file_size})')
        if tensor.name in names:
            raise ModelFileError(f'tensor "{tensor.name}" is there twice')
        names.add(tensor.name)
    ordered = sorted(listed, key=lambda tensor: tensor.offset)
    for before, after in itertools.pairwise(ordered):
        if before.offset + before.size > after.offset:
            raise ModelFileError(f'tensor "{after.name}" begins within tensor "{before.name}"')
    for tensor in listed:
        yield Tensor(tensor.name, tensor.type, tensor.shape, data_offset + tensor.offset, tensor.size)


def _name(raw: bytes, what: str) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{what} is not UTF-8") from error
    if not name.isprintable():
        # Native code ends a name at its first NUL byte: two different names would be one there.
        raise ModelFileError(f"{what} has characters that cannot be printed")
    return name


def _shortened(key: str) -> str:
    return key if len(key) <= 80 else key[:79] + "…"
