"""Whether a model's files may be loaded: each is checked before its first load here, whatever put it into the store,
and one whose load has crashed the engine twice in a row is not loaded again. The user may release it.

A file that fails is *in quarantine*: it stays where it is, and loads of it are refused with the reason. Verdicts are
remembered by digest (`corral.store.verdicts`), checks by the version of their rules, crashes by the engine's build.
Calls block.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from corral import gguf, published
from corral.errors import EngineCrashed, ModelFileError, NotFound, Quarantined, StoreError
from corral.gguf import lora
from corral.names import Digest, Name, parse_digest
from corral.store import Store
from corral.store.verdicts import Verdict

ALWAYS = "always"
"""What a release for good is recorded as."""

CRASHES = 2
"""Loads in a row that may crash."""


class Kept(msgspec.Struct, frozen=True):
    """A file in quarantine, or one that was released from it; and the models that have it."""

    digest: Digest
    reason: str
    models: tuple[Name, ...]
    released: bool
    for_good: bool = False


class Quarantine:
    """The quarantine of one store. `engine` names the build that models are loaded with now."""

    def __init__(self, store: Store, engine: Callable[[], str]) -> None:
        self._store = store
        self._engine = engine

    def require_fit(self, model: str, projectors: Sequence[str], adapters: Sequence[str], label: str) -> None:
        """Returns when these files may be loaded.

        They are checked now unless that was done before, by their headers: some tenths of a second for a large
        vocabulary. `Quarantined` names the model by `label`; `ModelFileError` for a file that cannot even be read.
        """
        engine = self._engine()
        rules = dict.fromkeys((model, *projectors), gguf.RULES)
        rules |= dict.fromkeys(adapters, f"{gguf.RULES} for {Path(model).name}")
        for path in self._blobs(list(rules)):
            digest = parse_digest(path.name)
            verdict = self._checked(digest, path, rules[str(path)], Path(model))
            if (reason := reason_of(verdict, engine)) and not is_released(verdict):
                raise Quarantined(label, reason)

    def loaded(self, files: Sequence[str]) -> None:
        """Notes that these files were loaded: what crashed before was not their fault, or is over."""
        engine = self._engine()
        for path in self._blobs(files):
            digest = parse_digest(path.name)
            verdict = self._store.verdicts.get(digest)
            self._note(digest, msgspec.structs.replace(verdict, engine=engine, loaded=True, crashes=0, crash=""))

    def crashed(self, files: Sequence[str], error: EngineCrashed) -> None:
        """Notes a load that ended in a crash, against those files that this engine has never loaded, or against all."""
        engine = self._engine()
        verdicts = {digest: self._of_engine(digest, engine) for digest in self._digests(files)}
        unproven = {digest: verdict for digest, verdict in verdicts.items() if not verdict.loaded}
        for digest, verdict in (unproven or verdicts).items():
            crashes = verdict.crashes + 1
            self._note(digest, msgspec.structs.replace(verdict, crashes=crashes, crash=error.how))

    def release(self, digests: Sequence[Digest], *, for_good: bool) -> list[Digest]:
        """Has those of the files that are in quarantine loaded all the same; which they are.

        `NotFound` when none is. A release ends with the rules' version unless it is `for_good`. `StoreError`.
        """
        engine = self._engine()
        verdicts = {digest: self._store.verdicts.get(digest) for digest in digests}
        found = {digest: verdict for digest, verdict in verdicts.items() if reason_of(verdict, engine)}
        if not found:
            raise NotFound("nothing of it is in quarantine")
        released = ALWAYS if for_good else gguf.RULES
        for digest, verdict in found.items():
            self._store.verdicts.put(digest, msgspec.structs.replace(verdict, released=released))
        return list(found)

    def all(self) -> list[Kept]:
        """Every file in quarantine, and those that were released. `StoreError` when the store cannot be read."""
        engine = self._engine()
        found = {
            digest: (verdict, reason)
            for digest, verdict in self._store.verdicts.all().items()
            if (reason := reason_of(verdict, engine)) and self._store.has_blob(digest)
        }
        models = self._store.list() if found else []
        digests = {one.name: {layer.digest for layer in one.manifest.layers} for one in models}
        return [
            Kept(
                digest,
                reason,
                tuple(name for name, theirs in digests.items() if digest in theirs),
                is_released(verdict),
                verdict.released == ALWAYS,
            )
            for digest, (verdict, reason) in found.items()
        ]

    def _checked(self, digest: Digest, path: Path, rules: str, model: Path) -> Verdict:
        """The verdict on a file by these rules, those of today; an adapter's are those for its model."""
        verdict = self._store.verdicts.get(digest)
        if verdict.rules != rules:
            verdict = msgspec.structs.replace(verdict, rules=rules, problem=_problem(path, model))
            self._note(digest, verdict)
        return verdict

    def _of_engine(self, digest: Digest, engine: str) -> Verdict:
        """What is known of a file with this engine: nothing that another one did with it."""
        verdict = self._store.verdicts.get(digest)
        if verdict.engine == engine:
            return verdict
        return msgspec.structs.replace(verdict, engine=engine, loaded=False, crashes=0, crash="")

    def _note(self, digest: Digest, verdict: Verdict) -> None:
        """Writes it down; where nothing can be written, it is found out again the next time."""
        try:
            self._store.verdicts.put(digest, verdict)
        except StoreError:
            return

    def _digests(self, files: Sequence[str]) -> list[Digest]:
        return [parse_digest(path.name) for path in self._blobs(files)]

    def _blobs(self, files: Sequence[str]) -> Iterator[Path]:
        """Those files that are blobs of the store."""
        return (path for path in map(Path, files) if path.parent == self._store.blobs_folder)


def reason_of(verdict: Verdict, engine: str) -> str:
    """Why a file is in quarantine; empty: it is not."""
    if verdict.problem:
        return verdict.problem
    if verdict.engine == engine and verdict.crashes >= CRASHES:
        return f"loading it has crashed the engine {verdict.crashes} times in a row ({verdict.crash})"
    return ""


def is_released(verdict: Verdict) -> bool:
    """Whether the user has said that it is loaded all the same."""
    return verdict.released in (ALWAYS, gguf.RULES)


def _problem(path: Path, model: Path) -> str:
    """What the checks of new models say of a file; empty: nothing. `ModelFileError` for what no release can load."""
    file = published.read(path)
    try:
        gguf.check_new(file.text)
        if file.projector is not None:
            gguf.check_new(file.projector)
        if file.text.kind == "adapter":
            lora.check(file.text, published.read(model).text)
    except ModelFileError as error:
        return str(error)
    return ""
