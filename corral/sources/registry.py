"""Models from and to registries: what to fetch or send, in which order, and the words for it. Knows no HTTP.

Any registry that speaks the OCI distribution API: Ollama's, Hugging Face's, a plain one. Rules and words: spec cli §9
and §10, api §15.3 and §15.4.
"""

import asyncio
import platform
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from yarl import URL

from corral import EMULATES, __version__
from corral.errors import CorralError, ModelNotFound, NotFound, SourceError, StoreError, Unauthorized, Unreachable
from corral.messages import Progress
from corral.names import Name
from corral.sources.auth import Authenticator
from corral.sources.http import Http, StatusError, is_passing
from corral.sources.ledger import allocated
from corral.sources.limits import Limits
from corral.sources.patience import patiently
from corral.sources.repository import BlobSource, Repository
from corral.sources.transfer import DigestMismatchError, Transfer, is_stored
from corral.sources.upload import Upload
from corral.store import BlobMissing, Layer, Manifest, MediaType, Store, parse_manifest
from corral.store.blobs import require_space

_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
_SYSTEMS = {"win32": "windows"}
_THREADS = 8
_TRIES = 5
"""How often a pull looks for what is missing when blobs go, with other models, as fast as they come."""

USER_AGENT = (
    f"ollama/{EMULATES} ({_MACHINES.get(platform.machine(), platform.machine())} "
    f"{_SYSTEMS.get(sys.platform, sys.platform)}) corral/{__version__}"
)
"""Some registries answer by what the client says it is (spec cli §9); ours says both."""


class Registry:
    """Pulls and pushes. One for a process: pulls of the same blob share one transfer. Closed at its end."""

    def __init__(self, *, docker_config: Path, key_folder: Path, limits: Limits | None = None) -> None:
        """`docker_config`: the file `docker login` writes; `key_folder`: where `id_ed25519` lies or will lie."""
        self._docker_config = docker_config
        self._key_folder = key_folder
        self._limits = limits or Limits()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="transfer")
        self._transfers: dict[Path, Transfer] = {}
        self._uploads: dict[URL, URL] = {}
        self._is_closed = False

    async def close(self) -> None:
        """Stops what is under way, keeping what has arrived, and waits for threads at work."""
        self._is_closed = True
        for transfer in list(self._transfers.values()):
            await transfer.stop()
        await asyncio.to_thread(self._executor.shutdown)

    async def pull(
        self, name: Name, store: Store, *, insecure: bool = False, prune: bool = True, there: Name | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Brings a model into the store. `insecure`: plain HTTP; `prune`: delete what the name's old manifest leaves.

        `there`: what the model is called at a mirror, whose registry is asked then; it is stored under `name`.
        Closing the iterator stops the work; what has arrived stays and is gone on with next time.
        """
        yield Progress("pulling manifest")
        async with self._repository(there or name, insecure) as repository:
            manifest = await _fetch_manifest(repository, self._limits)
            await self._check_space(manifest, store)
            for tries_left in reversed(range(_TRIES)):
                async with aclosing(self._pull_blobs(repository, store, manifest)) as steps:
                    async for step in steps:
                        yield step
                yield Progress("verifying sha256 digest")
                yield Progress("writing manifest")
                leftovers = await store.run(_leftovers, store, name, manifest) if prune else False
                try:
                    await store.run_locking(store.write_manifest, name, manifest.raw, prune)
                    break
                except BlobMissing:  # it was here for another model, which was deleted meanwhile
                    if not tries_left:
                        raise
        if leftovers:
            yield Progress("removing unused layers")
        yield Progress("success")

    async def push(self, name: Name, store: Store, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Sends a model to the registry its name says. What the registry has already is not sent again.

        Closing the iterator stops the work; a push of the same blob goes on with what the registry took, if it can.
        """
        yield Progress("retrieving manifest")
        try:
            stored = await store.run(store.manifest, name)
        except ModelNotFound as error:
            yield Progress("couldn't retrieve manifest")
            path = store.manifests_folder / name.path
            raise ModelNotFound(f"open {path}: no such file or directory", status=500) from error
        blobs = {layer.digest: layer for layer in stored.manifest.blobs}
        paths = {digest: await store.run(store.open_path, digest) for digest in blobs}
        async with self._repository(stored.name, insecure) as repository:
            for number, (digest, layer) in enumerate(blobs.items()):
                upload = Upload(
                    repository,
                    layer,
                    paths[digest],
                    is_first=number == 0,
                    limits=self._limits,
                    executor=self._executor,
                    sessions=self._uploads,
                )
                async with aclosing(upload.watch()) as steps:
                    async for step in steps:
                        yield step
            yield Progress("pushing manifest")
            await patiently(lambda: repository.put_manifest(stored.manifest), self._limits, _may_help_to_put_again)
        yield Progress("success")

    async def _pull_blobs(
        self, repository: Repository, store: Store, manifest: Manifest
    ) -> AsyncGenerator[Progress, None]:
        try:
            for layer in manifest.blobs:
                async with aclosing(self._pull_blob(repository, store, layer, manifest)) as steps:
                    async for step in steps:
                        yield step
        except DigestMismatchError:
            yield Progress("verifying sha256 digest")
            raise

    async def _pull_blob(
        self, repository: Repository, store: Store, layer: Layer, manifest: Manifest
    ) -> AsyncGenerator[Progress, None]:
        path = store.blob_path(layer.digest)
        while not await store.run(is_stored, store, layer):
            transfer = self._transfers.get(path)
            is_joined = transfer is not None and not transfer.is_over and transfer.layer.size == layer.size
            if transfer is None or not is_joined:
                source = BlobSource(repository, layer.digest, layer.size)
                transfer = Transfer(source, store, layer, self._limits, self._executor)
                self._transfers[path] = transfer
            try:
                async with aclosing(transfer.watch()) as steps:
                    async for step in steps:
                        yield step
                await store.run_locking(store.keep_for, manifest)
                return
            except (SourceError, NotFound):
                if not is_joined or self._is_closed:  # another's registry failed; ours may do better
                    raise
            finally:
                if self._transfers.get(path) is transfer and transfer.is_over:
                    del self._transfers[path]
        yield Progress(f"pulling {layer.digest.short}", str(layer.digest), layer.size, layer.size)

    async def _check_space(self, manifest: Manifest, store: Store) -> None:
        """`DiskFull` before anything is fetched, rather than after most of it has been."""

        def check() -> None:
            missing = {layer.digest: layer.size for layer in manifest.blobs if not is_stored(store, layer)}
            there = sum(min(allocated(store.blob_path(digest)), size) for digest, size in missing.items())
            require_space(store.root, sum(missing.values()) - there)

        await store.run(check)

    @asynccontextmanager
    async def _repository(self, name: Name, insecure: bool) -> AsyncIterator[Repository]:
        try:
            origin = URL(f"{'http' if insecure else 'https'}://{name.host}")
        except ValueError as error:
            raise SourceError(f'invalid registry host "{name.host}"') from error
        http = Http(origin, trusted=insecure, user_agent=USER_AGENT, answer_seconds=self._limits.answer)
        authenticator = Authenticator(http, docker_config=self._docker_config, key_folder=self._key_folder)
        async with http.hold():
            yield Repository(http, authenticator, name)


async def _fetch_manifest(repository: Repository, limits: Limits) -> Manifest:
    try:
        manifest = parse_manifest(await patiently(repository.manifest, limits, _asks_us_to_wait))
    except CorralError as error:
        raise _about_manifest(error) from error
    if any(layer.media_type == MediaType.TENSOR for layer in manifest.layers):
        raise SourceError("this model requires MLX support, but the MLX runtime is not available")
    return manifest


def _asks_us_to_wait(error: SourceError) -> bool:
    """A registry that only says that it is out of order is not waited for: there may be mirrors."""
    return is_passing(error) and isinstance(error, StatusError) and error.pause > 0


def _may_help_to_put_again(error: SourceError) -> bool:
    """Also where a blob is unknown that has just been seen: while another push writes it, a registry may miss it."""
    return is_passing(error) or (isinstance(error, StatusError) and "BLOB_UNKNOWN" in str(error))


def _about_manifest(error: CorralError) -> CorralError:
    """The same error with the words in front that clients look for (spec api §15.3)."""
    sentence = f"pull model manifest: {error}"
    for kind in (Unreachable, Unauthorized):
        if isinstance(error, kind):
            return kind(sentence)
    return NotFound(sentence, status=500) if isinstance(error, NotFound) else SourceError(sentence)


def _leftovers(store: Store, name: Name, manifest: Manifest) -> bool:
    """Whether the manifest that is about to be replaced names blobs that the new one does not."""
    try:
        before = store.manifest(name).manifest
    except (ModelNotFound, StoreError):
        return False
    return not {layer.digest for layer in before.blobs} <= {layer.digest for layer in manifest.blobs}
