"""`corral bundle` from its flags to the file: checks first, then packages, then the file."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from corral import bundle
from corral.background import Report
from corral.bundle import launcher
from corral.bundle.runtime import Runtime, Target, gather, targets
from corral.errors import BadRequest, DiskFull
from corral.names import Name
from corral.store import Store


def make(
    name: Name,
    store: Store,
    path: Path,
    report: Report,
    *,
    is_light: bool = False,
    pythons: Sequence[str] = (),
    platforms: Sequence[str] = (),
    replaces: bool = False,
) -> int:
    """Writes a bundle; its bytes. Errors: as of `bundle.write` and `runtime.gather`, and `BadRequest` for the flags."""
    wanted = targets(pythons, platforms)
    stored = store.manifest(name)
    bundle.check_weights(store, bundle.layers_of(stored)[0])
    bundle.check_free(path, replaces=replaces)
    try:
        folder = tempfile.TemporaryDirectory(prefix="corral-bundle-", ignore_cleanup_errors=True)
    except OSError as error:
        raise DiskFull(f"no temporary folder can be made: {error}") from error
    with folder as place:
        runtime = asyncio.run(_gathered(wanted, Path(place), is_light, report))
        return bundle.write(name, store, runtime, path, report, replaces=replaces)


def make_llamafile(
    name: Name, store: Store, program: Path, path: Path, report: Report, *, replaces: bool = False
) -> int:
    """Writes a llamafile of a launcher that the user has; its bytes. Errors: as of `make`."""
    stored = store.manifest(name)
    weights, _ = bundle.layers_of(stored)
    bundle.check_weights(store, weights)
    bundle.check_free(path, replaces=replaces)
    if path.exists() and program.samefile(path):
        raise BadRequest(f'"{path}" is the launcher itself')
    return launcher.write(stored, store, program, path, report, replaces=replaces)


async def _gathered(wanted: Sequence[Target], folder: Path, is_light: bool, report: Report) -> Runtime:
    made: list[Runtime] = []
    async with aclosing(gather(wanted, folder, is_light=is_light, made=made)) as steps:
        async for step in steps:
            report(step)
    return made[0]
