"""Pulling and pushing models: what to fetch or send, in which order, with which status lines. Knows no HTTP.

Any registry that speaks the OCI distribution API: Ollama's, Hugging Face's, a plain one. Rules and words: spec cli §9
and §10, api §15.3 and §15.4.
"""

import asyncio
import platform
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TypeVar

from yarl import URL

from corral import EMULATES, __version__
from corral.errors import (
    CorralError,
    ModelNotFound,
    NotFound,
    NotPublished,
    SourceError,
    StoreError,
    Unauthorized,
    Unreachable,
)
from corral.messages import Progress
from corral.names import Digest, Name
from corral.sources.registry.auth import Authenticator
from corral.sources.registry.encryption import Encryption
from corral.sources.registry.errors import Interrupted, NotEncrypted, StatusError, is_retryable
from corral.sources.registry.http import Http
from corral.sources.registry.ledger import allocated
from corral.sources.registry.limits import TransferLimits
from corral.sources.registry.parallel import Job, in_parallel
from corral.sources.registry.repository import BlobSource, Repository
from corral.sources.registry.retry import retry
from corral.sources.registry.transfer import DigestMismatchError, Transfer, is_stored
from corral.sources.registry.upload import UnfinishedUploads, Upload
from corral.store import BlobMissing, Layer, Manifest, MediaType, Store, parse_manifest
from corral.store.blobs import require_space
from corral.system.current import PLATFORM

T = TypeVar("T")

_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
_SYSTEMS = {"win32": "windows"}
_THREADS = 8
_ROUNDS = 5
"""How often a pull fetches what is missing while blobs of it are deleted with other models."""

_FIRST_ATTEMPTS = 3
"""At the first requests; further ones, where a connection breaks: fewer than for a blob, as there may be mirrors."""

USER_AGENT = (
    f"ollama/{EMULATES} ({_MACHINES.get(platform.machine(), platform.machine())} "
    f"{_SYSTEMS.get(PLATFORM, PLATFORM)}) corral/{__version__}"
)
"""Some registries answer by the client's name (spec cli §9); ours has Ollama's and its own."""


class Registry:
    """Pulls and pushes. One for a process: pulls of the same blob share one transfer. Closed at its end."""

    def __init__(self, *, docker_config: Path, key_folder: Path, limits: TransferLimits | None = None) -> None:
        """`docker_config`: the file `docker login` writes; `key_folder`: where `id_ed25519` lies or will lie."""
        self._docker_config = docker_config
        self._key_folder = key_folder
        self._limits = limits or TransferLimits()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="transfer")
        self._transfers: dict[Path, Transfer] = {}
        self._unfinished_uploads = UnfinishedUploads()
        self._is_closed = False

    async def close(self) -> None:
        """Stops all transfers, which keep what has arrived, and waits for their threads."""
        self._is_closed = True
        for transfer in list(self._transfers.values()):
            await transfer.stop()
        await asyncio.to_thread(self._executor.shutdown)

    async def pull(
        self,
        name: Name,
        store: Store,
        *,
        encryption: Encryption = Encryption.REQUIRED,
        prune: bool = True,
        remote_name: Name | None = None,
    ) -> AsyncGenerator[Progress, None]:
        """Brings a model into the store. `prune`: delete what the name's old manifest leaves.

        `remote_name`: what the model is called at a mirror, whose registry is asked then; it is stored under `name`.
        Closing the iterator stops the work; what has arrived stays and is gone on with next time.
        """
        yield Progress("pulling manifest")
        with _about_manifest():
            repository = await self._repository(remote_name or name, encryption)
        async with repository.http.hold():
            manifest = await _fetch_manifest(repository, self._limits)
            await self._check_space(manifest, store)
            for rounds_left in reversed(range(_ROUNDS)):
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
                    if not rounds_left:
                        raise
        if leftovers:
            yield Progress("removing unused layers")
        yield Progress("success")

    async def push(
        self, name: Name, store: Store, *, encryption: Encryption = Encryption.REQUIRED
    ) -> AsyncGenerator[Progress, None]:
        """Sends a model to the registry in its name. What the registry has already is not sent again.

        Small blobs are sent side by side, and all are reported in the manifest's order (spec api §15.4).

        Closing the iterator stops the work; a push of the same blob goes on with what the registry took, if it can.
        """
        yield Progress("retrieving manifest")
        try:
            stored = await store.run(store.manifest, name)
        except ModelNotFound as error:
            yield Progress("couldn't retrieve manifest")
            path = store.manifests_folder / name.path
            raise StoreError(f"open {path}: no such file or directory") from error
        blobs = {layer.digest: layer for layer in stored.manifest.blobs}
        paths = {digest: await store.run(store.open_path, digest) for digest in blobs}
        repository = await self._repository(stored.name, encryption)
        async with repository.http.hold():
            uploads = [
                Upload(
                    repository,
                    layer,
                    paths[digest],
                    is_first=number == 0,
                    limits=self._limits,
                    executor=self._executor,
                    unfinished=self._unfinished_uploads,
                )
                for number, (digest, layer) in enumerate(blobs.items())
            ]
            jobs = [Job(upload.watch(), upload.connections) for upload in uploads]
            async with aclosing(in_parallel(jobs, self._limits.connections)) as steps:
                async for step in steps:
                    yield step
            yield Progress("pushing manifest")
            await retry(
                lambda: repository.put_manifest(stored.manifest), self._limits.retry, retryable=_is_put_retryable
            )
        yield Progress("success")

    async def _pull_blobs(
        self, repository: Repository, store: Store, manifest: Manifest
    ) -> AsyncGenerator[Progress, None]:
        """Fetches small blobs side by side, and reports the blobs in the manifest's order (spec api §15.3).

        Clients draw one bar after the other, so the lines of two blobs never mix.
        """
        by_digest: dict[Digest, list[Layer]] = {}
        for layer in manifest.blobs:
            by_digest.setdefault(layer.digest, []).append(layer)
        jobs = [
            Job(
                self._pull_in_turn(repository, store, layers, manifest),
                max(self._limits.connections_for(layer.size) for layer in layers),
            )
            for layers in by_digest.values()
        ]
        try:
            async with aclosing(in_parallel(jobs, self._limits.connections)) as steps:
                async for step in steps:
                    yield step
        except DigestMismatchError:
            yield Progress("verifying sha256 digest")
            raise

    async def _pull_in_turn(
        self, repository: Repository, store: Store, layers: Iterable[Layer], manifest: Manifest
    ) -> AsyncGenerator[Progress, None]:
        """Fetches layers that share a digest, and so a file; a manifest may contradict itself about their size."""
        for layer in layers:
            async with aclosing(self._pull_blob(repository, store, layer, manifest)) as steps:
                async for step in steps:
                    yield step

    async def _pull_blob(
        self, repository: Repository, store: Store, layer: Layer, manifest: Manifest
    ) -> AsyncGenerator[Progress, None]:
        """Fetches one blob, or waits for the transfer of it that another pull has begun."""
        path = store.blob_path(layer.digest)
        while not await store.run(is_stored, store, layer):
            transfer = self._transfers.get(path)
            is_joined = transfer is not None and not transfer.is_over and transfer.layer.size == layer.size
            if transfer is None or not is_joined:
                if self._is_closed:
                    raise Interrupted("the download was stopped")
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
                if not is_joined or self._is_closed:  # the transfer of another pull failed; its registry may be another
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

    async def _repository(self, name: Name, encryption: Encryption) -> Repository:
        """The model's repository, after a request to its registry where that has to show how it is spoken to."""
        encryption = encryption.at(name.host)
        http = self._http(name.host, encryption)
        if encryption is Encryption.PREFERRED and not await _is_encrypted(http, self._limits):
            http = self._http(name.host, Encryption.NONE)
        authenticator = Authenticator(http, docker_config=self._docker_config, key_folder=self._key_folder)
        return Repository(http, authenticator, name)

    def _http(self, host: str, encryption: Encryption) -> Http:
        scheme = "http" if encryption is Encryption.NONE else "https"
        try:
            origin = URL(f"{scheme}://{host}")
        except ValueError as error:
            raise SourceError(f'invalid registry host "{host}"') from error
        is_trusted = encryption is not Encryption.REQUIRED
        return Http(origin, trusted=is_trusted, user_agent=USER_AGENT, answer_seconds=self._limits.answer)


async def _is_encrypted(http: Http, limits: TransferLimits) -> bool:
    """Whether the host speaks TLS; what it answers then does not matter here."""
    url = http.origin / "v2" / ""

    async def ask() -> None:
        async with http.answer_time("GET", url), http.send("GET", url):
            pass

    async with http.hold():
        try:
            await _uninterrupted(ask, limits)
        except NotEncrypted:
            return False
    return True


async def _fetch_manifest(repository: Repository, limits: TransferLimits) -> Manifest:
    with _about_manifest():
        raw = await retry(lambda: _uninterrupted(repository.manifest, limits), limits.retry, retryable=_asks_us_to_wait)
        manifest = parse_manifest(raw)
    if any(layer.media_type == MediaType.TENSOR for layer in manifest.layers):
        raise SourceError("this model requires MLX support, but the MLX runtime is not available")
    return manifest


async def _uninterrupted(request: Callable[[], Awaitable[T]], limits: TransferLimits) -> T:
    """The answer, asked for again where the connection breaks; `Unreachable` when it breaks each time."""
    for attempt in range(min(_FIRST_ATTEMPTS, limits.retry.attempts)):
        try:
            return await request()
        except Interrupted:
            await asyncio.sleep(limits.retry.pause * 2**attempt)
    try:
        return await request()
    except Interrupted as error:
        raise Unreachable(str(error)) from error


def _asks_us_to_wait(error: SourceError) -> bool:
    """Whether the error names a time to wait. Any other is raised at once: there may be mirrors."""
    return is_retryable(error) and isinstance(error, StatusError) and error.pause > 0


def _is_put_retryable(error: SourceError) -> bool:
    """Also where a blob is unknown that has just been seen: while another push writes it, a registry may miss it."""
    return is_retryable(error) or (isinstance(error, StatusError) and "BLOB_UNKNOWN" in str(error))


@contextmanager
def _about_manifest() -> Iterator[None]:
    """Raises errors with the words in front that clients look for (spec api §15.3)."""
    try:
        yield
    except CorralError as error:
        sentence = f"pull model manifest: {error}"
        for kind in (Unreachable, Unauthorized):
            if isinstance(error, kind):
                raise kind(sentence) from error
        raise (NotPublished if isinstance(error, NotFound) else SourceError)(sentence) from error


def _leftovers(store: Store, name: Name, manifest: Manifest) -> bool:
    """Whether the manifest that is about to be replaced names blobs that the new one does not."""
    try:
        before = store.manifest(name).manifest
    except (ModelNotFound, StoreError):
        return False
    return not {layer.digest for layer in before.blobs} <= {layer.digest for layer in manifest.blobs}
