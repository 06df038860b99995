"""The store: models whose files are missing or changed, files that belong to no model, downloads that stopped."""

from collections.abc import Callable, Iterator
from pathlib import Path

from corral.doctor.findings import Finding
from corral.errors import CorralError, StoreError, reason_of
from corral.golang.units import byte_text
from corral.names import Digest, Name
from corral.store import Store, Survey
from corral.store.adoptions import hash_file
from corral.store.disk import open_regular
from corral.store.survey import Damage

SUBJECT = "Models"
SHOWN = 10
"""Findings of one kind that are shown one by one."""

Progress = Callable[[str, int, int], None]
"""Is called with a label, the bytes of all, and the bytes that are done."""


def examine(models: Path, verify: Progress | None = None) -> Iterator[Finding]:
    """The store below a folder. With `verify` every file of a model is read and hashed."""
    if not models.is_dir():
        return
    store = Store(models)
    try:
        found = store.survey()
        yield from judged(found)
        if verify is not None:
            yield from _verified(store, found, verify)
    except CorralError as error:
        yield Finding(SUBJECT, "wrong", str(error), f'see the permissions of "{models}"')
    finally:
        store.close()


def judged(found: Survey) -> Iterator[Finding]:
    """What to say of a store."""
    yield from _first((_broken(*one) for one in found.broken), len(found.broken), "manifests that cannot be read")
    by_model: dict[Name, list[Damage]] = {}
    for damage in found.damaged:
        by_model.setdefault(damage.name, []).append(damage)
    yield from _first((_damaged(*one) for one in by_model.items()), len(by_model), "damaged models")
    unreadable = (_unreadable(path) for path in found.unreadable)
    yield from _first(unreadable, len(found.unreadable), "files that cannot be read")
    whole = [model for model in found.models if model.name not in by_model]
    if whole:
        sizes = {layer.digest: layer.size for model in whole for layer in model.manifest.blobs}
        text = f"{_count(len(whole), 'model')} with all files, {byte_text(sum(sizes.values()))}"
        yield Finding(SUBJECT, "ok", text)
    elif not by_model and not found.broken:
        yield Finding(SUBJECT, "ok", "none yet: `corral search` finds some, `corral pull` fetches one")
    if found.unnamed[0]:
        count, size = found.unnamed
        text = f"{_count(count, 'file')} of {byte_text(size)} that no model needs"
        remedy = (
            "they stay as long as there are manifests that cannot be read"
            if found.broken
            else "the server deletes them at its next start, when they are older than an hour"
        )
        yield Finding(SUBJECT, "note", text, f"{remedy} (not with OLLAMA_NOPRUNE)")
    if found.partial[0]:
        count, size = found.partial
        text = f"{_count(count, 'download')} that stopped halfway, {byte_text(size)} have come"
        yield Finding(SUBJECT, "note", text, "`corral pull MODEL` goes on with them; after 30 days they are deleted")
    if found.temporary[0]:
        count, size = found.temporary
        text = f"{_count(count, 'file')} of {byte_text(size)} that are just being written, or were left behind"
        yield Finding(SUBJECT, "note", text, "the server deletes what was left behind at its next start")


def _first(findings: Iterator[Finding], count: int, what: str) -> Iterator[Finding]:
    """Some of them, and how many more there are."""
    for place, finding in enumerate(findings):
        if place == SHOWN:
            yield Finding(SUBJECT, "wrong", f"and {count - SHOWN} more {what}")
            return
        yield finding


def _broken(path: str, reason: str) -> Finding:
    remedy = f"delete the file `manifests/{path}` in the models folder, and pull or create the model anew"
    return Finding(SUBJECT, "wrong", f'the manifest "{path}" cannot be read: {reason}', remedy)


def _damaged(name: Name, damages: list[Damage]) -> Finding:
    missing = [damage for damage in damages if damage.size is None]
    parts = []
    if missing:
        size = byte_text(sum(damage.layer.size for damage in missing))
        parts.append(f"{_count(len(missing), 'file')} of {size} missing")
    parts += [
        f"{damage.layer.digest.short} has {damage.size} bytes instead of {damage.layer.size}"
        for damage in damages
        if damage.size is not None
    ]
    return Finding(SUBJECT, "wrong", f"{name}: {', '.join(parts)}", _again(name))


def _unreadable(path: Path) -> Finding:
    return Finding(SUBJECT, "wrong", f'"{path}" cannot be read: permission denied', f'`sudo chown "$USER" {path}`')


def _again(name: Name) -> str:
    return (
        f"`corral pull {name}` fetches what is missing; a model of your own has to be made anew, or `corral rm {name}`"
    )


def _verified(store: Store, found: Survey, progress: Progress) -> Iterator[Finding]:
    """Hashes every file that is there, once, whatever number of models have it."""
    missing = {damage.layer.digest for damage in found.damaged}
    owners: dict[Digest, Name] = {}
    sizes: dict[Digest, int] = {}
    for model in found.models:
        for layer in model.manifest.blobs:
            owners.setdefault(layer.digest, model.name)
            sizes[layer.digest] = layer.size
    wanted = [digest for digest in owners if digest not in missing]
    total = sum(sizes[digest] for digest in wanted)
    done = wrong = 0
    for digest in wanted:
        name = owners[digest]
        try:
            hashed, done = _hash(store.blob_path(digest), done, lambda now: progress("verifying", total, now))
        except (OSError, StoreError) as error:
            if not _is_named(digest, store):
                continue  # its model has been changed or deleted meanwhile
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            yield Finding(SUBJECT, "wrong", f"{name}: {digest.short} cannot be read: {reason}", _again(name))
            wrong += 1
            continue
        if hashed != digest:
            path = store.blob_path(digest)
            text = f'{name}: the bytes of "{path}" have changed: their digest is {hashed.short}, not {digest.short}'
            yield Finding(SUBJECT, "wrong", text, f"`rm {path}`, then {_again(name)}")
            wrong += 1
    if not wrong:
        yield Finding(SUBJECT, "ok", f"the bytes of {_count(len(wanted), 'file')} are those of their digests")


def _is_named(digest: Digest, store: Store) -> bool:
    """Whether a model has that file now."""
    return any(layer.digest == digest for model in store.survey().models for layer in model.manifest.blobs)


def _hash(path: Path, done: int, progress: Callable[[int], None]) -> tuple[Digest, int]:
    """The digest of a file, and `done` with its bytes added."""
    with open_regular(path) as file:
        digest = hash_file(file, lambda read: progress(done + read))
        return digest, done + file.tell()


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"
