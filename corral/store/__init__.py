"""Models on disk: blobs, and the manifests that name them. Knows paths and digests, not what a model means.

The layout is exactly Ollama's (spec cli §8), so both programs can work on one folder, in turn and at once. Files appear
by rename, never half-written. What could collide between processes (a manifest coming while its blob is deleted) is
done under an advisory lock of the folder.
"""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from corral.background import Arguments, Result, Threads
from corral.errors import ModelNotFound, NotFound, StoreError
from corral.names import Digest, Name, parse_digest
from corral.store import disk
from corral.store import prune as pruning
from corral.store import survey as surveying
from corral.store.adoptions import Adoptions
from corral.store.blobs import Adopted, BlobFile, BlobMissing, Blobs, BlobWriter, DigestMismatch, How, require_space
from corral.store.conversations import Conversations
from corral.store.derived import Derived
from corral.store.disk import FileState
from corral.store.expected import Expected
from corral.store.manifest import (
    MAX_MANIFEST_BYTES,
    Layer,
    Manifest,
    MediaType,
    Stored,
    encode_manifest,
    parse_manifest,
)
from corral.store.manifests import Manifests
from corral.store.prune import DERIVED_LIFETIME, GRACE, PARTIAL_LIFETIME, PruneReport
from corral.store.survey import Survey
from corral.store.verdicts import Verdicts

__all__ = [
    "GRACE",
    "MAX_MANIFEST_BYTES",
    "PARTIAL_LIFETIME",
    "Adopted",
    "BlobFile",
    "BlobMissing",
    "BlobWriter",
    "DigestMismatch",
    "FileState",
    "Layer",
    "Manifest",
    "MediaType",
    "PruneReport",
    "Store",
    "Stored",
    "Survey",
    "encode_manifest",
    "parse_manifest",
]

logger = logging.getLogger(__name__)


LOCK_SECONDS = 60.0
"""How long a change waits for the folder's lock: longer than a prune of a large store takes."""


class Store:
    """The models below one folder. Every call looks at the disk; only how blobs were is kept. Errors: `StoreError`.

    The calls block: an event loop makes them through `run` and `run_locking`. `lock_seconds`: how long a call waits
    for another program that has locked the folder.
    """

    def __init__(self, root: Path, lock_seconds: float = LOCK_SECONDS) -> None:
        self.root = root
        self._lock_seconds = lock_seconds
        self._closing = threading.Event()
        self._threads = Threads("store", 8)
        self._locking_threads = Threads("store-locking", 4)
        self.manifests_folder = root / "manifests"
        self.blobs_folder = root / "blobs"
        self._manifests = Manifests(self.manifests_folder)
        self._expected = Expected(root / "expected")
        self.derived = Derived(root / "derived")
        self.conversations = Conversations(root / "conversations")
        self.verdicts = Verdicts(root / "verdicts")
        adoptions = Adoptions(root / "adopted")
        self._blobs = Blobs(
            self.blobs_folder, adoptions, (self.derived, self.conversations, self.verdicts), self._closing
        )

    # From an event loop

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """Runs a call in threads kept for those that wait for no lock, though they may hash a blob for minutes."""
        return await self._threads.run(function, *arguments, **options)

    async def run_locking(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """Runs a call in threads kept for those that wait for the folder's lock.

        They are `write_manifest`, `keep_for`, `copy`, `delete`, `discard` and `prune`.
        """
        return await self._locking_threads.run(function, *arguments, **options)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[BlobWriter]:
        """A `writer` whose file is opened and closed in a thread; its methods are to be run there too."""
        writer = self.writer()
        await self.run(writer.__enter__)
        try:
            yield writer
        finally:
            await self.run(writer.__exit__, None, None, None)

    @asynccontextmanager
    async def file_to_write(self, size: int) -> AsyncIterator[BlobFile]:
        """A file among the blobs that another process is to write; `DiskFull` at once when `size` bytes do not fit.

        It is opened and removed in a thread; `BlobFile.publish` is to be run there too.
        """
        await self.run(require_space, self.root, size)
        file = BlobFile(self._blobs)
        await self.run(file.__enter__)
        try:
            yield file
        finally:
            await self.run(file.__exit__, None, None, None)

    def close(self) -> None:
        """Ends what waits for the lock or hashes a blob again, in `StoreError`; other calls go on to their end."""
        self._closing.set()
        self._threads.close()
        self._locking_threads.close()

    # Models

    def resolve(self, name: Name) -> Name:
        """The name as it is spelled on disk, part by part ignoring case; itself where nothing matches (spec api §3)."""
        return self._manifests.resolve(name)

    def manifest(self, name: Name) -> Stored:
        """The model of that name in any case; `ModelNotFound`, or `StoreError` when its manifest is broken."""
        found = self.resolve(name)
        try:
            return self._manifests.read(found)
        except FileNotFoundError:
            raise ModelNotFound(str(name)) from None

    def list(self) -> list[Stored]:
        """All models, newest first to the second, then by path. What cannot be read is left out, with a warning."""
        return self._manifests.list()

    def write_manifest(
        self, name: Name, raw: bytes, prune: bool = True, *, small: Mapping[Digest, bytes] = MappingProxyType({})
    ) -> Stored:
        """Puts a manifest in place, whole, byte for byte, once all its blobs are there.

        With `prune`, blobs that only the manifest of that name before it needed are deleted. `small`: blobs that were
        added for it; they are added again if they went meanwhile, with a model that had the same. `BlobMissing`;
        `StoreError` when the manifest is broken or a blob has another size than it says.
        """
        manifest = parse_manifest(raw)
        with self._locked():
            for digest in small.keys() & {layer.digest for layer in manifest.blobs}:
                if not self.has_blob(digest):
                    self.add_bytes(small[digest])
            return self._replace(name, manifest, prune)

    def keep_for(self, manifest: Manifest) -> None:
        """Keeps the blobs of a model that is being fetched from prunes, until its manifest is written.

        At most for `PARTIAL_LIFETIME` after the last call, when the fetching counts as abandoned.
        """
        with self._locked():
            self._expected.add(manifest)

    def copy(self, source: Name, destination: Name, prune: bool = True) -> Stored:
        """Gives a model a second name, over whatever had it; nothing happens when both are the same name."""
        with self._locked():
            stored = self.manifest(source)
            if source.folded == destination.folded:
                return stored
            return self._replace(destination, stored.manifest, prune)

    def delete(self, name: Name, prune: bool = True) -> Name:
        """Removes a model, and with `prune` the blobs no other model needs; its name as it was spelled on disk.

        `ModelNotFound` (spec api §15.2).
        """
        with self._locked():
            found = self.resolve(name)
            before = self._manifests.readable(found)
            self._manifests.remove(found)
            if prune and before is not None:
                self._delete_unreferenced({layer.digest for layer in before.blobs})
            return found

    def references(self) -> set[Digest]:
        """Every blob some manifest names; `StoreError` when a manifest cannot be read, which may name any."""
        return self._manifests.references()

    # Blobs

    def blob_path(self, digest: Digest) -> Path:
        """Where that blob lies or would lie."""
        return self._blobs.path(digest)

    def open_path(self, digest: Digest) -> Path:
        """Where an existing blob's bytes are, for a reader that trusts its digest; `NotFound` when there is none.

        A blob whose file was touched since this store first looked at it is hashed again, and one that is a hard link
        to a file of the user's also when that was touched since it was taken over. `StoreError` when its bytes have
        changed. Others are not read.
        """
        return self._blobs.checked_path(digest)

    def check_files(self, paths: Iterable[str]) -> None:
        """Looks at blobs again whose paths `open_path` gave: the same errors, before an engine opens them."""
        for path in map(Path, paths):
            if path.parent == self.blobs_folder:
                self.open_path(parse_digest(path.name))

    def state(self, manifest: Manifest) -> tuple[FileState | None, ...]:
        """What tells whether a blob of a model was touched; None for one that is not there."""
        return tuple(self._blobs.state(layer.digest) for layer in manifest.blobs)

    def has_blob(self, digest: Digest) -> bool:
        return self._blobs.path(digest).is_file()

    def touch(self, digest: Digest, size: int) -> bool:
        """Whether there is a sound blob of this size. If so, the next prune keeps it as if it had just been added."""
        return self._blobs.touch(digest, size)

    def size_and_time(self, digest: Digest) -> tuple[int, int] | None:
        """A blob's size in bytes and its modification time in ns; None when there is none that can be looked at."""
        try:
            status = self.blob_path(digest).stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def blob_size(self, digest: Digest) -> int:
        """Bytes of a blob; `NotFound`."""
        size = self._blobs.size(digest)
        if size is None:
            raise NotFound(f'blob "{digest}" not found')
        return size

    def add_bytes(self, data: bytes) -> tuple[Digest, int, bool]:
        """Stores a blob: its digest, its size, and whether it is new."""
        with self.writer() as writer:
            writer.write(data)
            digest, created = writer.commit()
            return digest, len(data), created

    def writer(self, size: int = 0) -> BlobWriter:
        """A context manager that takes a blob's bytes in pieces. `DiskFull` at once when `size` does not fit."""
        if size:
            require_space(self.root, size)
        return BlobWriter(self._blobs)

    def find_same(self, size: int, chunks: Iterable[bytes]) -> Digest | None:
        """The digest of so many bytes that are in the store already, which need no room; None when they are not.

        `chunks` is read only where a blob of that size is. A blob that is found is kept from the next prune.
        """
        return self._blobs.find_same(size, chunks)

    def adopt(self, path: Path, link: bool = True, progress: Callable[[int], None] | None = None) -> Adopted:
        """Makes a blob of a local file, writing its bytes anew only where there is no other way.

        A reflink is tried first: it shares the disk blocks and yet cannot be changed from outside. Then, unless `link`
        is false, a hard link: the file's owner may still write into it, which `open_path` notices. Then a copy.
        `progress` gets the bytes hashed so far. The file itself is never written to, nor its time changed.
        """
        return self._blobs.adopt(path, link, progress)

    def adopt_part(self, path: Path, offset: int, size: int, progress: Callable[[int], None] | None = None) -> Adopted:
        """Makes a blob of a stretch of a local file, sharing its disk blocks where the file system can, else as a copy.

        `progress` gets the bytes hashed so far.
        """
        return self._blobs.adopt_part(path, offset, size, progress)

    def link_beginning(
        self, path: Path, digest: Digest, size: int, progress: Callable[[int], None] | None = None
    ) -> None:
        """Makes a blob of the first `size` bytes of a local file, where they are: by a symbolic link to it.

        They are hashed unless the blob is that link already and the file was not touched since. `open_path` notices
        when they are changed. `StoreError` when they have another digest.
        """
        self._blobs.link_beginning(path, digest, size, progress)

    def way(self, path: Path) -> How:
        """How `adopt` would make a blob of a file, as tried with a name in the folder that goes again.

        `StoreError` where nothing can be written there.
        """
        return self._blobs.way(path)

    def discard(self, digests: Iterable[Digest]) -> None:
        """Deletes blobs that a job which failed had added, unless a manifest names them by now."""
        if candidates := set(digests):
            with self._locked():
                self._delete_unreferenced(candidates)

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder on the store's disk to work in; it goes when the block ends, or with a later prune."""
        return disk.scratch_folder(disk.temporary(self.root, pruning.TEMPORARY_PREFIX))

    # Housekeeping

    def prune(self, grace: float = GRACE, delete: bool = True) -> PruneReport:
        """The work at start-up (spec cli §2.2): modern blob names, and with `delete` no leftovers.

        Nothing that was touched in the last `grace` seconds is deleted, and nothing at all while a manifest cannot be
        read or there is no manifests folder. Downloads that can be gone on with stay for `PARTIAL_LIFETIME`, with what
        else there is of their models.
        """
        if not self.manifests_folder.is_dir():
            return PruneReport(complete=not self.blobs_folder.is_dir())
        with disk.explained(self.root, "cleaning up"), self._locked():
            renamed = pruning.rename_old_blobs(self.blobs_folder)
            if not delete:
                return PruneReport(renamed=renamed)
            try:
                references = self.references()
            except StoreError as error:
                logger.warning("nothing is deleted from the store, as a manifest cannot be read: %s", error)
                return PruneReport(renamed=renamed, complete=False)
            self._expected.delete_old()
            kept = references | self._expected.blobs()
            blobs, blob_bytes = pruning.delete_blobs(self._blobs, kept, grace)
            strays, stray_bytes = pruning.delete_temporaries(self.blobs_folder, self.manifests_folder, self.root, grace)
            partials, partial_bytes = pruning.delete_partials(self.blobs_folder, grace)
            self.derived.tidy(self.blobs_folder, DERIVED_LIFETIME)
            self.conversations.tidy(self.blobs_folder)
            self.verdicts.tidy(self.blobs_folder)
            folders = pruning.remove_empty_folders(self.manifests_folder)
        freed = blob_bytes + stray_bytes + partial_bytes
        return PruneReport(renamed, blobs, strays, partials, freed, folders)

    def survey(self) -> Survey:
        """What state the folder is in; changes nothing. `StoreError` when it cannot be looked at.

        Others may change it meanwhile: a model is damaged if it still is what it was before its files were looked for.
        """
        models, broken = self._manifests.surveyed()
        found = surveying.survey(models, broken, self.blobs_folder, self._expected.blobs())
        if not found.damaged:
            return found
        now = {(stored.name, stored.digest) for stored in self._manifests.surveyed()[0]}
        before = {stored.name: stored.digest for stored in models}
        return replace(found, damaged=[one for one in found.damaged if (one.name, before[one.name]) in now])

    # Below the surface

    def _replace(self, name: Name, manifest: Manifest, prune: bool) -> Stored:
        """`write_manifest` under the lock."""
        for layer in manifest.blobs:
            self._require(layer)
        found = self.resolve(name)
        before = self._manifests.readable(found)
        self._manifests.put(found, manifest.raw)
        if prune and before is not None:
            self._delete_unreferenced({layer.digest for layer in before.blobs})
        self._expected.remove(manifest)
        with disk.explained(self._manifests.path(found), "reading"):
            return self._manifests.read(found)

    def _require(self, layer: Layer) -> None:
        size = self._blobs.size(layer.digest)
        if size is None:
            raise BlobMissing(layer.digest)
        if size != layer.size:
            raise StoreError(f'blob "{layer.digest}" has {size} bytes, the manifest says {layer.size}')

    def _delete_unreferenced(self, candidates: set[Digest]) -> None:
        try:
            references = self.references()
        except StoreError as error:
            logger.warning("keeping blobs that may be unused, as a manifest cannot be read: %s", error)
            return
        for digest in candidates - references:
            with suppress(FileNotFoundError), disk.explained(self._blobs.path(digest), "deleting"):
                if self.has_blob(digest):
                    self._blobs.delete(digest)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with disk.explained(self.blobs_folder, "making"):
            self.blobs_folder.mkdir(parents=True, exist_ok=True)
            self.manifests_folder.mkdir(parents=True, exist_ok=True)
        with disk.locked(self.blobs_folder, self._lock_seconds, self._closing):
            yield
