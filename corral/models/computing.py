"""Blobs that a child process computes: a converted or a quantised model. Knows the store and `corral.job`.

Source: spec api §11.2, §11.4.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

from corral import gguf
from corral.cage import Cage
from corral.errors import BadRequest, CorralError
from corral.gguf.output import Written
from corral.gguf.types import TENSOR_TYPES
from corral.job import Job
from corral.messages import Progress
from corral.models.assemble import NO_DIGEST
from corral.models.given import Files
from corral.names import Digest
from corral.quantize import KINDS, kind_named
from corral.store import Store

Record = Callable[[Iterable[Digest]], None]
"""Takes digests of blobs that are new."""

_OLLAMAS = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
_FLOATS = ("F16", "BF16", "F32")
_ROOM = 1.15
"""By how much a quantised file may be larger than if every tensor were of its kind's usual type."""
_BITS = {kind.name: 8 * kind.block_bytes / kind.block for kind in TENSOR_TYPES.values()}


class Computed:
    """A blob in the making: iterate `steps` to its end, then `digest` and `created` are there.

    The bytes lie in a temporary file of the blobs' folder, which is gone on any error and when the iterator is closed.
    """

    digest: Digest
    created: bool

    def __init__(self, store: Store, size: int, start: Callable[[Path], Job[Written]], record: Record) -> None:
        """`size`: bytes that must be free; `start` makes the job that writes to a path."""
        self._store = store
        self._size = size
        self._start = start
        self._record = record

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """What the job reports, each hundredth of its bytes, with the digest that has clients draw a bar."""
        async with self._store.file_to_write(self._size) as file:
            job = self._start(file.path)
            shown, last = -1, None
            async with aclosing(job.steps()) as steps:
                async for step in steps:
                    part, last = 100 * step.completed // step.total if step.total else 0, step
                    if part > shown:
                        shown = part
                        yield Progress(step.status, NO_DIGEST, step.total, step.completed)
            if last is not None and shown < 100:
                yield Progress(last.status, NO_DIGEST, last.total, last.total)

            def publish() -> None:
                self.digest = Digest(job.result.digest)
                self.created = file.publish(self.digest, job.result.size)
                if self.created:
                    self._record([self.digest])

            await self._store.run(publish)


async def converting(files: Files, store: Store, record: Record, cage: Cage) -> Computed:
    """One GGUF of a safetensors folder's files."""
    found, size = await store.run(_paths, files, store)

    def start(target: Path) -> Job[Written]:
        return Job("corral.convert:convert", Written, "converting the model", cage=cage, files=found, target=target)

    return Computed(store, size, start, record)


async def converting_adapter(
    files: Files, base: gguf.GGUF, scale: float, store: Store, record: Record, cage: Cage
) -> Computed:
    """One GGUF of an adapter folder's files, for the model `base`."""
    found, size = await store.run(_paths, files, store)

    def start(target: Path) -> Job[Written]:
        return Job(
            "corral.convert.adapters:convert_adapter",
            Written,
            "converting the adapter",
            cage=cage,
            files=found,
            base=base.path,
            target=target,
            scale=scale,
        )

    return Computed(store, size, start, record)


async def scaling_adapter(digest: Digest, scale: float, store: Store, record: Record, cage: Cage) -> Computed:
    """An adapter's GGUF with `scale` times its strength."""
    source = await store.run(store.open_path, digest)

    def start(target: Path) -> Job[Written]:
        return Job(
            "corral.gguf.lora:scaled",
            Written,
            "scaling the adapter",
            cage=cage,
            source=source,
            target=target,
            scale=scale,
        )

    return Computed(store, await store.run(store.blob_size, digest), start, record)


def _paths(files: Files, store: Store) -> tuple[dict[str, Path], int]:
    """Where files lie, by their names, and their bytes together."""
    found = {name: store.open_path(digest) for name, digest in files.items()}
    return found, sum(path.stat().st_size for path in found.values())


async def quantizing(
    source: gguf.GGUF, kind: str, imatrix: Digest | None, threads: int, store: Store, record: Record, cage: Cage
) -> Computed:
    """A model's file, quantised."""
    matrix = None if imatrix is None else await store.run(store.open_path, imatrix)

    def start(target: Path) -> Job[Written]:
        return Job(
            "corral.quantize:quantize",
            Written,
            "quantizing the model",
            cage=cage,
            source=source.path,
            target=target,
            kind=kind,
            threads=threads,
            imatrix=matrix,
        )

    return Computed(store, expected_size(source, kind), start, record)


def wanted_kind(text: str) -> str:
    """The kind of quantisation that a request means (spec api §11.4); `CorralError` for one that there is not."""
    try:
        return kind_named(text)
    except BadRequest as error:
        kinds = (*_OLLAMAS, *(kind for kind in KINDS if kind not in _OLLAMAS))
        raise CorralError(f"unsupported quantization type {text} - supported types are {', '.join(kinds)}") from error


def check_source(has: str) -> None:
    """`CorralError` for a model that is quantised already."""
    if has not in _FLOATS:
        raise CorralError("quantization is only supported for F16, BF16 and F32 models")


def expected_size(file: gguf.GGUF, kind: str) -> int:
    """Bytes that the quantised file will have at most."""
    bits = _BITS[KINDS[kind]]
    weights = sum(
        tensor.size if len(tensor.shape) < 2 else min(tensor.elements * bits * _ROOM / 8, tensor.elements * 4)
        for tensor in file.tensors
    )
    return file.data_offset + int(weights)
