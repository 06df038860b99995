"""What would become of each model that was found, by the store and by its files' headers. Changes nothing.

Whether a file can be linked is tried, with a name in the models folder that goes again: no rule of file systems says it
as well.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from corral import llamafile, published
from corral.adopting.found import Candidate, File, Left
from corral.errors import CorralError
from corral.names import Digest, Name
from corral.store import Store, Stored, disk
from corral.store.blobs import How
from corral.system.files import is_ours


@dataclass(frozen=True, slots=True)
class Judged:
    """A model, and how its bytes would come into the store; `reason`: why they would have to be copied."""

    model: Candidate
    how: How
    reason: str = ""
    existing: Name | None = None
    """The model of the store that it is already."""


def judge(
    models: Iterable[Candidate], store: Store, looking: Callable[[Candidate], None] = lambda _: None
) -> tuple[tuple[Judged, ...], tuple[Left, ...]]:
    """Those that can be adopted or are there, and those that cannot; `looking` is told which is looked at.

    `StoreError` when the models folder cannot be read or written to.
    """
    known = Known.of(store)
    judged: list[Judged] = []
    left: list[Left] = []
    for model in models:
        looking(model)
        if (existing := known.same(model)) is not None:
            judged.append(Judged(model, "hardlink", existing=existing))
        elif model.name.folded in known.names:
            left.append(
                Left(model.parts[0].path, f'the name "{model.name}" is another model\'s: give that one another')
            )
        elif reason := _unusable(model):
            left.append(Left(model.parts[0].path, reason))
        else:
            judged.append(_way(model, store))
    return tuple(judged), tuple(left)


@dataclass(frozen=True, slots=True)
class Known:
    """What the store has: models by their names, weights by digest, the files of blobs by disk and inode."""

    names: dict[Name, Stored]
    owners: dict[Digest, Name]
    files: dict[tuple[int, int], Digest]

    @classmethod
    def of(cls, store: Store) -> "Known":
        """Nothing of a folder that is not there yet. `StoreError` when it cannot be looked at."""
        models = store.survey().models if store.root.is_dir() else []
        owners: dict[Digest, Name] = {}
        files: dict[tuple[int, int], Digest] = {}
        for stored in models:
            if stored.weights is None:
                continue
            owners.setdefault(stored.weights.digest, stored.name)
            if (state := inode_of(store.blob_path(stored.weights.digest))) is not None:
                files[state] = stored.weights.digest
        return cls({stored.name.folded: stored for stored in models}, owners, files)

    def same(self, model: Candidate) -> Name | None:
        """The model that has these weights: by a digest that is known, the very file, or name and size."""
        if len(model.parts) == 1:
            digest = self.digest_of(model.parts[0])
            if digest in self.owners:
                return self.owners[digest]
        stored = self.names.get(model.name.folded)
        if stored is None or stored.weights is None:
            return None
        size = sum(part.size for part in model.parts)
        exact = stored.weights.size == size
        merged = len(model.parts) > 1 and abs(stored.weights.size - size) <= _HEADERS * len(model.parts)
        return stored.name if exact or merged else None

    def digest_of(self, file: File) -> Digest | None:
        """By what its program knows, or as it is a blob's file; None where only its bytes could tell."""
        if file.digest is not None:
            return file.digest
        state = inode_of(file.real)
        return self.files.get(state) if state is not None else None


_HEADERS = 64 << 20
"""Bytes by which a part of a split model may be larger or smaller than its share of the whole: its own header."""


def inode_of(path: Path) -> tuple[int, int] | None:
    """Which file it is; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unusable(model: Candidate) -> str:
    """Why no model can be made of these files; empty where nothing speaks against it. Reads their headers."""
    for file in model.files:
        if llamafile.container(file.real) == "bundle":
            return "is a bundle: `pull` takes the model out of it"
        try:
            kind = published.read(file.real).published_gguf.kind
        except CorralError as error:
            return f"{file.path.name}: {error}" if file in model.projectors else str(error)
        if file in model.projectors:
            if kind != "projector":
                return f'"{file.path.name}" beside it is called a projector, and is none'
        elif kind == "adapter":
            return "is an adapter: `ADAPTER` in a Modelfile adds it to a model"
        elif kind == "projector":
            return "is a projector and no model"
    return ""


def _way(model: Candidate, store: Store) -> Judged:
    if len(model.parts) > 1:
        return Judged(model, "copy", f"its {len(model.parts)} parts become one file")
    for file in model.files:
        if (how := store.way(file.real)) == "copy":
            return Judged(model, how, _why_copied(file, store.root))
    return Judged(model, how)


def _why_copied(file: File, root: Path) -> str:
    status = file.real.stat()
    root = disk.nearest(root)
    if status.st_dev != root.stat().st_dev:
        return f'it is on another disk than "{root}"'
    if not is_ours(status):
        return "it is another user's, and the system links only files of your own"
    return "its disk has neither reflinks nor hard links"
