"""Writing a GGUF file: its header, and where its tensors come to lie. Their bytes are the caller's.

Little-endian; versions 2 and 3 of the format are written alike. Source: spec cli §17.
"""

import struct
from collections.abc import Mapping, Sequence

from msgspec import Struct

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, Array, Scalar, Tensor
from corral.gguf.types import DEFAULT_ALIGNMENT, MAGIC, SCALAR_CODES, TENSOR_TYPES, WIDTHS, ValueType

_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_HEAD = "<IQQ"
"""What follows the magic: version, number of tensors, number of keys."""


class Layout(Struct, frozen=True):
    """A file to be written: first `header`, then each of `tensors` in its order, padded to a multiple of `alignment`.

    The tensors' offsets count from the file's beginning. `size` is that of the whole file.
    """

    header: bytes
    tensors: tuple[Tensor, ...]
    alignment: int
    size: int

    def padding(self, tensor: Tensor) -> bytes:
        """What is written after this tensor's bytes."""
        return bytes(-tensor.size % self.alignment)


def layout(
    fields: Mapping[str, bytes], tensors: Sequence[Tensor], *, alignment: int = DEFAULT_ALIGNMENT, version: int = 3
) -> Layout:
    """The file with these keys (encoded by `encode`, `encode_array` or `copied_fields`) and tensors, in their order.

    Of each tensor only name, type and shape count. The key `general.alignment` must agree with `alignment`.
    """
    entries, placed, offset = [], [], 0
    for tensor in tensors:
        entries.append(_entry(tensor, offset))
        size = tensor_bytes(tensor.type, tensor.shape)
        placed.append((tensor, offset, size))
        offset += size + -size % alignment
    keys = [_text(key.encode()) + value for key, value in fields.items()]
    head = MAGIC + struct.pack(_HEAD, version, len(tensors), len(keys)) + b"".join(keys) + b"".join(entries)
    head += bytes(-len(head) % alignment)
    return Layout(
        head,
        tuple(Tensor(tensor.name, tensor.type, tensor.shape, len(head) + at, size) for tensor, at, size in placed),
        alignment,
        len(head) + offset,
    )


def new_tensor(name: str, kind: str, shape: Sequence[int]) -> Tensor:
    """A tensor for `layout`; `shape` has the row length first, `kind` is a name of `TENSOR_TYPES`."""
    return Tensor(name, kind, tuple(shape), 0, tensor_bytes(kind, shape))


def tensor_bytes(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of this type and shape; `ModelFileError` when its rows cannot be divided into blocks."""
    layout = TENSOR_TYPES[_TYPE_NUMBERS[kind]]
    row, elements = shape[0] if shape else 1, 1
    for size in shape:
        elements *= size
    if row % layout.block:
        raise ModelFileError(f"rows of {row} elements cannot be divided into {kind}'s blocks of {layout.block}")
    return elements // layout.block * layout.block_bytes


def encode(kind: ValueType, value: Scalar) -> bytes:
    """A single value as `layout` takes it."""
    return struct.pack("<I", kind) + _value(kind, value)


def encode_array(element: ValueType, values: Sequence[Scalar]) -> bytes:
    """An array of values of one type as `layout` takes it."""
    head = struct.pack("<IIQ", ValueType.ARRAY, element, len(values))
    if element is ValueType.STRING:
        return head + b"".join([_text(str(value).encode()) for value in values])
    return head + struct.pack(f"<{len(values)}{SCALAR_CODES[element]}", *values)


def cut_array(encoded: bytes, length: int) -> bytes:
    """An encoded array of single values or strings with its first `length` elements, which it must have."""
    _, element, count = struct.unpack_from("<IIQ", encoded)
    if length > count:
        raise ModelFileError(f"an array of {count} elements cannot be cut to {length}")
    at = _ARRAY_HEAD
    if element == ValueType.STRING:
        for _ in range(length):
            at += 8 + struct.unpack_from("<Q", encoded, at)[0]
    else:
        at += length * WIDTHS[ValueType(element)]
    return struct.pack("<IIQ", ValueType.ARRAY, element, length) + encoded[_ARRAY_HEAD:at]


_ARRAY_HEAD = struct.calcsize("<IIQ")


def copied_fields(file: GGUF) -> dict[str, bytes]:
    """Every key of a file with its value as it stands there, byte for byte; `ModelFileError`.

    The file must be little-endian and of version 2 or 3.
    """
    if file.big_endian or file.version < 2:
        raise ModelFileError("only a little-endian GGUF of version 2 or 3 can be copied")
    found = {}
    try:
        with file.open() as source:
            position = len(MAGIC) + struct.calcsize(_HEAD)
            for key, kind in file.types.items():
                start = position + 8 + len(key.encode())
                position = start + 4
                value = file.metadata[key]
                if isinstance(value, Array):
                    position = value.offset + value.size
                elif kind is ValueType.STRING:
                    source.seek(position)
                    position += 8 + struct.unpack("<Q", source.read(8))[0]
                else:
                    position += WIDTHS[kind]
                source.seek(start)
                found[key] = source.read(position - start)
    except OSError as error:
        raise ModelFileError(f'cannot read "{file.path}": {error.strerror}') from error
    return found


def _entry(tensor: Tensor, offset: int) -> bytes:
    head = _text(tensor.name.encode()) + struct.pack("<I", len(tensor.shape))
    return head + struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, _TYPE_NUMBERS[tensor.type], offset)


def _value(kind: ValueType, value: Scalar) -> bytes:
    return _text(str(value).encode()) if kind is ValueType.STRING else struct.pack("<" + SCALAR_CODES[kind], value)


def _text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw
