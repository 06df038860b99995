"""Which files are not loaded: those that fail the checks before their first load, and those that crash the engine."""

from pathlib import Path

import pytest

from corral import gguf, names
from corral.config import Config
from corral.doctor import quarantine as doctor
from corral.errors import EngineCrashed, ModelFileError, NotFound, Quarantined
from corral.gguf import GGUF
from corral.models.quarantine import Quarantine
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.asking import ask, generate
from tests.commands import Shell
from tests.conftest import FAKE_ENGINE, StartServer, add_model
from tests.engines import engines, tell
from tests.tiny_models import tiny_llama

CRASH = EngineCrashed("it crashed", how="signal: segmentation fault")


@pytest.fixture
def store(tmp_path: Path, tiny_gguf: Path) -> Store:
    add_model(tmp_path / "models", "good", tiny_gguf)
    return Store(tmp_path / "models")


def weights(store: Store, name: str = "good") -> str:
    layers = store.manifest(names.parse(name)).manifest.layers
    return str(store.blob_path(next(layer.digest for layer in layers if layer.media_type == MediaType.MODEL)))


def smuggle(store: Store, name: str, file: Path) -> None:
    """Puts a model into the store as another program does: unchecked."""
    digest, size, _ = store.add_bytes(file.read_bytes())
    config, length, _ = store.add_bytes(b"{}")
    layer = Layer(MediaType.MODEL, digest, size)
    store.write_manifest(names.parse(name), encode_manifest(Layer(MediaType.CONFIG, config, length), (layer,)))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A model that no model can be made of: its chat template nests too deeply for the engine's parser."""
    return tiny_llama(tmp_path / "bad.gguf", chat_template="{{ " + "(" * 1000 + ")" * 1000 + " }}")


def test_a_file_is_checked_once_and_again_by_other_rules(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Path] = []

    def check(file: GGUF) -> None:
        checked.append(file.path)

    monkeypatch.setattr(gguf, "check_new", check)
    for _ in range(2):
        Quarantine(store, lambda: "e").require_fit(weights(store), (), (), "good")
    assert len(checked) == 1
    monkeypatch.setattr(gguf, "RULES", "other")
    Quarantine(store, lambda: "e").require_fit(weights(store), (), (), "good")
    assert len(checked) == 2
    next((store.root / "verdicts").iterdir()).write_bytes(b"\xff{")
    Quarantine(store, lambda: "e").require_fit(weights(store), (), (), "good")
    assert len(checked) == 3


def test_what_fails_is_not_loaded_until_it_is_released(
    store: Store, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smuggle(store, "bad", bad)
    quarantine, file = Quarantine(store, lambda: "e"), weights(store, "bad")
    with pytest.raises(
        Quarantined, match=r'^model "bad" is in quarantine: key "tokenizer\.chat_template" has brackets'
    ):
        quarantine.require_fit(file, (), (), "bad")
    (kept,) = quarantine.all()
    assert ([str(name) for name in kept.models], kept.released) == (["bad:latest"], False)
    quarantine.release([kept.digest], for_good=False)
    quarantine.require_fit(file, (), (), "bad")
    monkeypatch.setattr(gguf, "RULES", "other")
    with pytest.raises(Quarantined):
        quarantine.require_fit(file, (), (), "bad")
    quarantine.release([kept.digest], for_good=True)
    monkeypatch.setattr(gguf, "RULES", "third")
    quarantine.require_fit(file, (), (), "bad")
    assert Path(file).exists()
    store.delete(names.parse("bad"))
    assert quarantine.all() == []
    assert not (store.root / "verdicts" / Path(file).name).exists()


def test_two_crashes_in_a_row_are_enough_and_count_for_that_engine_only(store: Store) -> None:
    build = "one"
    quarantine, file = Quarantine(store, lambda: build), weights(store)
    quarantine.crashed([file], CRASH)
    quarantine.loaded([file])
    quarantine.crashed([file], CRASH)
    quarantine.require_fit(file, (), (), "good")
    quarantine.crashed([file], CRASH)
    with pytest.raises(Quarantined, match=r"crashed the engine 2 times in a row \(signal: segmentation fault\)"):
        quarantine.require_fit(file, (), (), "good")
    build = "two"
    quarantine.require_fit(file, (), (), "good")
    with pytest.raises(NotFound):
        quarantine.release([names.parse_digest(Path(file).name)], for_good=False)


def test_the_file_that_was_never_loaded_is_blamed(store: Store, tmp_path: Path) -> None:
    add_model(store.root, "other", tiny_llama(tmp_path / "other.gguf", seed=7))
    quarantine, base, new = Quarantine(store, lambda: "e"), weights(store), weights(store, "other")
    quarantine.loaded([base])
    for _ in range(2):
        quarantine.crashed([base, new], CRASH)
    quarantine.require_fit(base, (), (), "good")
    with pytest.raises(Quarantined):
        quarantine.require_fit(new, (), (), "other")


def test_a_folder_that_cannot_be_written_stops_no_load(store: Store) -> None:
    (store.root / "verdicts").write_text("in the way")
    Quarantine(store, lambda: "e").require_fit(weights(store), (), (), "good")


def test_what_cannot_even_be_read_cannot_be_released(store: Store, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(Path(weights(store)).read_bytes()[:2000])
    smuggle(store, "cut", tmp_path / "cut.gguf")
    with pytest.raises(ModelFileError) as caught:
        Quarantine(store, lambda: "e").require_fit(weights(store, "cut"), (), (), "cut")
    assert not isinstance(caught.value, Quarantined)


def test_a_server_and_its_commands(start_server: StartServer, tmp_path: Path, tiny_gguf: Path, bad: Path) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "good", tiny_gguf)
    smuggle(Store(home / ".ollama" / "models"), "bad", bad)
    server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE))
    shell = Shell(home, server.host)
    assert shell.run("quarantine").stderr == "no file is in quarantine\n"
    refused = generate(server, "a", "bad")
    assert (refused.status, len(engines(home))) == (500, 0)
    assert refused.error.endswith("\n`corral quarantine release bad:latest` loads it all the same")
    tell(home, crashes=True)
    for _ in range(2):
        assert generate(server, "a", "good").error == "llama-server process has terminated: signal: aborted"
    assert "crashed the engine 2 times in a row (signal: aborted)" in generate(server, "a", "good").error
    assert len(engines(home)) == 2
    listed = shell.run("quarantine").stdout
    assert "bad:latest: sha256:" in listed
    assert "  `corral quarantine release good:latest` loads it\n" in listed
    tell(home)
    assert shell.run("quarantine", "release", "good").stdout.startswith("released sha256:")
    assert generate(server, "a", "good").status == 200
    assert shell.run("quarantine", "release", "bad", "--for-good").status == 0
    assert generate(server, "a", "bad").status == 200
    assert "  released for good\n" in shell.run("quarantine").stdout
    assert ask(server, "POST", "/api/quarantine/release", {"model": "nothing"}).status == 404
    assert ask(server, "POST", "/api/quarantine/release", {"model": "good"}).error == "nothing of it is in quarantine"
    found = list(doctor.examine(Config(models=server.models, engine=str(FAKE_ENGINE))))
    assert [(finding.level, finding.text.split(":")[0]) for finding in found] == [("note", "bad")]
