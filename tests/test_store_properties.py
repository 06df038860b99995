"""The store against a simple account of it: whatever is done in whatever order, no model ever lacks a blob."""

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from corral.errors import ModelNotFound, StoreError
from corral.names import Digest, Name, parse
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.conftest import RANDOM_CASES

CONTENTS = [bytes([letter]) * letter for letter in range(1, 7)]
NAMES = [parse(text) for text in ("a", "A", "b", "ns/a:x", "NS/A:X", "host.example/ns/a:x", "host.example/ns/a:y")]

contents = st.sampled_from(CONTENTS)
names = st.sampled_from(NAMES)


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def manifest(layers: list[bytes], config: bytes) -> bytes:
    entries = [Layer(MediaType.MODEL, digest_of(data), len(data)) for data in layers]
    return encode_manifest(Layer(MediaType.CONFIG, digest_of(config), len(config)), tuple(entries))


class StoreAndAccount(RuleBasedStateMachine):
    """`models` says what should be there: by folded name, the contents of the layers and config."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store, self.others = Store(Path(self.folder.name)), Store(Path(self.folder.name))
        self.models: dict[Name, tuple[bytes, ...]] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(data=contents)
    def add_a_blob(self, data: bytes) -> None:
        known = self.store.has_blob(digest_of(data))
        assert self.store.add_bytes(data) == (digest_of(data), len(data), not known)

    @rule()
    def another_program_goes_on(self) -> None:
        """Nothing is known by one of two only, nor by one that has just begun."""
        self.store, self.others = self.others, Store(Path(self.folder.name))

    @rule(data=contents, junk=st.binary(max_size=3))
    def damage_a_blob_and_bring_it_again(self, data: bytes, junk: bytes) -> None:
        if self.store.has_blob(digest_of(data)) and len(junk) != len(data):
            self.store.blob_path(digest_of(data)).write_bytes(junk)
            damaged = {one.layer.digest for one in self.store.survey().damaged}
            assert damaged == {digest_of(data)} & self.needed()
            self.store.blob_path(digest_of(data)).write_bytes(data)

    @rule(data=contents)
    def give_up_on_a_blob(self, data: bytes) -> None:
        before = set(self.store.blobs_folder.glob("*"))
        with suppress(KeyError), self.store.writer() as writer:
            writer.write(data)
            raise KeyError
        assert set(self.store.blobs_folder.glob("*")) == before

    @rule(name=names, layers=st.lists(contents, max_size=3), config=contents, prune=st.booleans())
    def write_a_model(self, name: Name, layers: list[bytes], config: bytes, prune: bool) -> None:
        for data in (*layers, config):
            self.store.add_bytes(data)
        stored = self.store.write_manifest(name, raw := manifest(layers, config), prune)
        assert (stored.name.folded, stored.manifest.raw) == (name.folded, raw)
        self.models[name.folded] = (*layers, config)

    @rule(name=names, config=contents)
    def write_a_model_without_its_blobs(self, name: Name, config: bytes) -> None:
        if not self.store.has_blob(digest_of(config)):
            with pytest.raises(StoreError, match=r" is missing$"):
                self.store.write_manifest(name, manifest([], config))

    @rule(source=names, destination=names)
    def copy_a_model(self, source: Name, destination: Name) -> None:
        try:
            self.store.copy(source, destination)
        except ModelNotFound:
            assert source.folded not in self.models
        else:
            self.models[destination.folded] = self.models[source.folded]

    @rule(name=names)
    def delete_a_model(self, name: Name) -> None:
        try:
            self.store.delete(name)
        except ModelNotFound:
            assert name.folded not in self.models
        else:
            del self.models[name.folded]

    @rule()
    def prune_what_is_recent_too(self) -> None:
        report = self.store.prune(grace=0)
        assert report.complete or not (self.store.root / "manifests").exists()
        if report.complete and self.store.blobs_folder.exists():
            assert {path.name for path in self.store.blobs_folder.iterdir()} == {
                digest.filename for digest in self.needed()
            }

    @rule()
    def prune_as_at_start(self) -> None:
        assert self.store.prune().deleted_blobs == 0

    def needed(self) -> set[Digest]:
        return {digest_of(data) for layers in self.models.values() for data in layers}

    @invariant()
    def the_models_are_those_of_the_account(self) -> None:
        if hasattr(self, "store"):
            found = {stored.name.folded: stored for stored in self.store.list()}
            assert found.keys() == self.models.keys()
            for name, stored in found.items():
                assert [layer.digest for layer in stored.manifest.blobs] == [digest_of(d) for d in self.models[name]]

    @invariant()
    def no_model_lacks_a_blob(self) -> None:
        if hasattr(self, "store"):
            assert self.store.references() == self.needed()
            for digest in self.needed():
                assert digest_of(self.store.open_path(digest).read_bytes()) == digest


TestStoreAndAccount = StoreAndAccount.TestCase
TestStoreAndAccount.settings = settings(max_examples=RANDOM_CASES or 40, stateful_step_count=30)
