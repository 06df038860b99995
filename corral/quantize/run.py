"""Quantising a file: its tensors are read in pieces, quantised by several threads, and written in their order.

Reading, quantising, writing and hashing go on side by side. Memory is a few pieces a thread, whatever the model's size.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from msgspec import Struct

from corral import published
from corral.background import Report
from corral.errors import ModelFileError
from corral.gguf import FILE_TYPES, GGUF, Tensor, ValueType, writer
from corral.gguf.output import HashedFile, Written
from corral.gguf.writer import tensor_bytes
from corral.messages import Progress
from corral.quantize.choice import choose
from corral.quantize.imatrix import Imatrix
from corral.quantize.kinds import FLOATS
from corral.quantize.library import Bytes, Floats, library
from corral.system.files import read_into

_QUANTIZATION_VERSION = 2
"""Of the blocks' layout, as `general.quantization_version` says."""

_PIECE = 1 << 20
"""Numbers that a thread takes on at once, if a row has no more."""

_STRIDE = 1 << 16
"""Numbers that are converted at once: as 32-bit floats they stay in the core's own cache."""

_COPIED = 4 << 20
"""Bytes of a tensor that stays as it is that are copied at once."""

_AHEAD = 3
"""Pieces a thread may be ahead of the writer."""

_REPORT = 8 << 20
"""Bytes of the source between two reports of progress."""

_LARGEST = 1e9
"""No quantised type holds larger numbers. Their squares, by which some types weigh them, might overflow unseen."""


class _Piece(Struct, frozen=True):
    """Some of a tensor's rows: `size` bytes at `offset` of the source. `padding` follows them in the target."""

    source: Tensor
    type: str
    offset: int
    size: int
    weights: Floats | None
    padding: bytes = b""


def run(source: Path, target: Path, kind: str, threads: int, report: Report, imatrix: Path | None) -> Written:
    """See `corral.quantize.quantize`."""
    file = published.read(source).published_gguf
    matrix = Imatrix(imatrix) if imatrix else None
    if matrix:
        matrix.check(file.tensors)
    types = choose(file, kind, has_imatrix=matrix is not None)
    layout = writer.layout(
        _fields(file, kind),
        [writer.new_tensor(tensor.name, types[tensor.name], tensor.shape) for tensor in file.tensors],
        alignment=file.alignment,
    )
    status, done, reported = f"quantizing {file.file_type} model to {kind}", 0, 0
    report(Progress(status, total=file.weights_bytes))
    with ExitStack() as stack:
        descriptor = _opened(source)
        stack.callback(os.close, descriptor)
        output = stack.enter_context(HashedFile(target))
        output.write(layout.header)
        made = stack.enter_context(closing(_in_order(_pieces(file, layout, matrix), descriptor, threads)))
        for piece, rows in made:
            output.write(rows.data)
            output.write(piece.padding)
            done += piece.size
            if done >= reported + _REPORT or done == file.weights_bytes:
                report(Progress(status, total=file.weights_bytes, completed=done))
                reported = done
    return output.written


def _fields(file: GGUF, kind: str) -> dict[str, bytes]:
    """The source's keys, with those that say how it is stored made true."""
    number = next(number for number, name in FILE_TYPES.items() if name == kind)
    kept = {key: value for key, value in writer.copied_fields(file).items() if not key.startswith("split.")}
    return {
        **kept,
        "general.file_type": writer.encode(ValueType.UINT32, number),
        "general.quantization_version": writer.encode(ValueType.UINT32, _QUANTIZATION_VERSION),
    }


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ModelFileError(f'cannot read "{path}": {error.strerror}') from error


def _pieces(file: GGUF, layout: writer.Layout, matrix: Imatrix | None) -> Iterator[_Piece]:
    """All of the file's tensors, in their order."""
    for source, target in zip(file.tensors, layout.tensors, strict=True):
        end = source.offset + source.size
        for offset, size, weights in _spans(source, target.type, matrix):
            padding = layout.padding(target) if offset + size == end else b""
            yield _Piece(source, target.type, offset, size, weights, padding)


def _spans(tensor: Tensor, kind: str, matrix: Imatrix | None) -> Iterator[tuple[int, int, Floats | None]]:
    """Where the tensor's pieces begin, their bytes and weights. No piece has rows of two experts that are weighed."""
    if tensor.type == kind:
        groups, step = [None], _COPIED
    else:
        weights = matrix.weights(tensor) if matrix else None
        groups = [None] if weights is None else list(weights)
        step = tensor_bytes(tensor.type, tensor.shape[:1]) * max(1, _PIECE // tensor.shape[0])
    size = tensor.size // len(groups)
    for begin, one in zip(range(tensor.offset, tensor.offset + tensor.size, size), groups, strict=True):
        for offset in range(begin, begin + size, step):
            yield offset, min(step, begin + size - offset), one


def _in_order(pieces: Iterator[_Piece], descriptor: int, threads: int) -> Generator[tuple[_Piece, Bytes], None, None]:
    """The pieces with their bytes for the target, made by so many threads that are not far ahead."""
    with ThreadPoolExecutor(threads, thread_name_prefix="quantize") as pool:
        begun: deque[tuple[_Piece, Future[Bytes]]] = deque()
        try:
            for piece in pieces:
                begun.append((piece, pool.submit(_made, piece, descriptor)))
                if len(begun) > threads * _AHEAD:
                    first, future = begun.popleft()
                    yield first, future.result()
            for first, future in begun:
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _made(piece: _Piece, descriptor: int) -> Bytes:
    """A piece's bytes for the target; `ModelFileError` for numbers that are not finite, before or after."""
    raw = _read(piece, descriptor)
    tensor, native = piece.source, library()
    if piece.type == tensor.type:
        if tensor.type in FLOATS and not native.is_finite(tensor.type, raw):
            raise _not_finite(tensor)
        return raw
    row = tensor.shape[0]
    given, wanted = tensor_bytes(tensor.type, (row,)), tensor_bytes(piece.type, (row,))
    rows, stride = piece.size // given, max(1, _STRIDE // row)
    made = np.empty(rows * wanted, np.uint8)
    space = np.empty(min(rows, stride) * row, np.float32)
    for first in range(0, rows, stride):
        last = min(rows, first + stride)
        floats = native.to_floats(tensor.type, raw[first * given : last * given], space)
        largest = max(floats.max(), -floats.min())  # a NaN wins in both
        if not np.isfinite(largest):
            raise _not_finite(tensor)
        if largest > _LARGEST and piece.type not in FLOATS:
            raise _too_large(piece)
        native.from_floats(piece.type, floats, made[first * wanted : last * wanted], row, piece.weights)
    if piece.type != "F32" and not native.is_finite(piece.type, made):
        raise _too_large(piece)
    return made


def _too_large(piece: _Piece) -> ModelFileError:
    return ModelFileError(f'tensor "{piece.source.name}" has numbers that are too large for {piece.type}')


def _not_finite(tensor: Tensor) -> ModelFileError:
    return ModelFileError(f'tensor "{tensor.name}" has numbers that are not finite')


def _read(piece: _Piece, descriptor: int) -> Bytes:
    raw = np.empty(piece.size, np.uint8)
    space, offset = raw.data, piece.offset
    try:
        while space:
            count = read_into(descriptor, space, offset)
            if not count:
                raise ModelFileError(f'the file became shorter while tensor "{piece.source.name}" was read')
            space, offset = space[count:], offset + count
    except OSError as error:
        raise ModelFileError(f'cannot read tensor "{piece.source.name}": {error.strerror}') from error
    return raw
