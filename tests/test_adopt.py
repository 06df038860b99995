"""`corral adopt`: what is found of each program's models, how they are taken over, and what is left and why."""

import hashlib
import os
import shutil
from pathlib import Path

import httpx
import pytest

from corral import names
from corral.adopting import judging, tools, walk
from corral.adopting.found import Found
from corral.adopting.grouping import together
from corral.adopting.taking import take
from corral.config import tool_folders
from corral.doctor import duplicates
from corral.errors import CorralError
from corral.store import Store
from tests.commands import Shell
from tests.conftest import FAKE_ENGINE, StartServer
from tests.test_assemble import write_split
from tests.tiny_models import tiny_llama, tiny_llava, tiny_lora


def put(source: Path, target: Path) -> Path:
    """A file of the same bytes, and of no other's inode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def named(found: Found) -> dict[str, list[str]]:
    """The files of each model by its name."""
    return {str(one.name): [file.path.name for file in one.files] for one in found.models}


def reasons(found: Found) -> dict[str, str]:
    return {one.path.name: one.reason for one in found.left}


def hub_file(repository: Path, source: Path, name: str) -> Path:
    """A file as Hugging Face's cache has it: a blob named by its digest, and a link in a snapshot."""
    blob = put(source, repository / "blobs" / hashlib.sha256(source.read_bytes()).hexdigest())
    link = repository / "snapshots" / "c0ffee" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text("c0ffee")
    return link


def test_lm_studios_models_have_publisher_repository_and_level(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    tiny_llava(tmp_path / "m.gguf", tmp_path / "p.gguf")
    put(tmp_path / "m.gguf", folder / "some.one" / "Llava-GGUF" / "Llava-Q4_K_M.gguf")
    put(tmp_path / "m.gguf", folder / "some.one" / "Llava-GGUF" / "Llava-Q8_0.gguf")
    put(tmp_path / "p.gguf", folder / "some.one" / "Llava-GGUF" / "mmproj-model-f16.gguf")
    put(tiny_gguf, folder / "stray.gguf")
    (folder / "mlx" / "m").mkdir(parents=True)
    (folder / "mlx" / "m" / "model.safetensors").touch()
    found = tools.lm_studio(folder)
    assert named(found) == {
        "some-one/Llava-GGUF:Q4_K_M": ["Llava-Q4_K_M.gguf", "mmproj-model-f16.gguf"],
        "some-one/Llava-GGUF:Q8_0": ["Llava-Q8_0.gguf", "mmproj-model-f16.gguf"],
        "stray:latest": ["stray.gguf"],
    }
    assert reasons(found) == {
        "m": "has safetensors, which have to be converted: `corral create NAME` in that folder converts it"
    }


def test_hugging_faces_cache_is_read_at_main_through_its_links(tiny_gguf: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--An-Owner--A.Model-GGUF"
    hub_file(repository, tiny_gguf, "A.Model-IQ4_XS.gguf")
    old = repository / "snapshots" / "0ld" / "Old-Q8_0.gguf"
    put(tiny_gguf, old)
    (repository / "blobs" / "ab.incomplete").touch()
    out = repository / "snapshots" / "c0ffee" / "out-Q8_0.gguf"
    out.symlink_to(tiny_gguf)
    gone = repository / "snapshots" / "c0ffee" / "gone-Q8_0.gguf"
    gone.symlink_to("../../blobs/gone")
    weights = tmp_path / "hub" / "models--gpt2" / "snapshots" / "1" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    found = tools.hugging_face(tmp_path / "hub")
    assert named(found) == {"hf.co/An-Owner/A.Model-GGUF:IQ4_XS": ["A.Model-IQ4_XS.gguf"]}
    assert str(found.models[0].parts[0].digest) == f"sha256:{hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()}"
    assert reasons(found) == {
        "ab.incomplete": "is a download that has not finished",
        "out-Q8_0.gguf": f'is a link out of the folder, to "{tiny_gguf}": name that file, if it is to be adopted',
        "gone-Q8_0.gguf": f'is a link to "{repository}/blobs/gone", which is not there',
        "1": "has safetensors, which have to be converted: `hf download gpt2 --local-dir FOLDER`, then `corral create"
        " NAME` in that folder",
    }
    assert tools.plain(repository) == tools.plain(tmp_path / "hub" / repository.name)
    assert named(tools.plain(tmp_path / "hub")) == named(found), "a cache that is named is read as one"
    (repository / "refs" / "main").unlink()
    os.utime(old.parent, (1, 1))
    assert named(tools.hugging_face(tmp_path / "hub")) == named(found), "without main the newest counts"


def test_llama_cpps_cache_is_named_by_its_manifests(tiny_gguf: Path, tmp_path: Path) -> None:
    put(tiny_gguf, tmp_path / "ggml-org_a_b-GGUF_a-Q4_K_M.gguf")
    put(tiny_gguf, tmp_path / "ggml-org_a_b-GGUF_mmproj-a-f16.gguf")
    put(tiny_gguf, tmp_path / "tinyllama-F16.gguf")
    put(tiny_gguf, tmp_path / "half-Q8_0.gguf.downloadInProgress")
    (tmp_path / "manifest=ggml-org=a_b-GGUF=latest.json").touch()
    found = tools.llama_cpp(tmp_path)
    assert named(found) == {
        "hf.co/ggml-org/a_b-GGUF:Q4_K_M": ["ggml-org_a_b-GGUF_a-Q4_K_M.gguf", "ggml-org_a_b-GGUF_mmproj-a-f16.gguf"],
        "tinyllama:F16": ["tinyllama-F16.gguf"],
    }
    assert reasons(found) == {"half-Q8_0.gguf.downloadInProgress": "is a download that has not finished"}


def test_folders_of_any_layout(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for name in (
        "My Model.Q5_K_M.gguf",
        "a/other-Q8_0.gguf",
        "b/other-Q8_0.gguf",
        "b/mmproj-third-f16.gguf",
        "b/mmproj-other.gguf",
        "b/ends.gguf",
        "big-F16-00001-of-00002.gguf",
        "big-F16-00002-of-00002.gguf",
        "half-00002-of-00003.gguf",
        "imatrix-big.gguf",
    ):
        put(tiny_gguf, folder / name)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.gguf")
    found = tools.plain(folder)
    assert named(found) == {
        "My-Model:Q5_K_M": ["My Model.Q5_K_M.gguf"],
        "big:F16": ["big-F16-00001-of-00002.gguf", "big-F16-00002-of-00002.gguf"],
        "other:Q8_0": ["other-Q8_0.gguf"],
        "other:other-Q8_0": ["other-Q8_0.gguf", "mmproj-other.gguf"],
        "ends:latest": ["ends.gguf"],
    }
    assert reasons(found) == {
        "loop": "is a link to another folder, which is not followed: name that one",
        "pipe.gguf": "is no file",
        "half-00002-of-00003.gguf": "is one of 3 parts, of which 1 are there",
        "imatrix-big.gguf": "is no model by its name, but what belongs to one",
        "mmproj-third-f16.gguf": "is a projector, and its name does not say of which model: `corral create` takes any"
        " two together",
    }
    assert named(tools.plain(folder / "big-F16-00002-of-00002.gguf")) == {"big:F16": named(found)["big:F16"]}
    assert reasons(tools.plain(tiny_gguf.parent / "tiny.txt")) == {"tiny.txt": "is no GGUF file by its name"}
    assert tools.lm_studio(tmp_path / "nothing") == tools.llama_cpp(tmp_path / "nothing") == Found()


def test_a_walk_has_bounds(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "deep" / "/".join("abcdefgh") / "i"
    put(tiny_gguf, deep / "m.gguf")
    assert reasons(tools.plain(tmp_path / "deep")) == {"i": "lies more than 8 folders deep: name it, to look there"}
    wide = tmp_path / "wide"
    for number in range(5):
        put(tiny_gguf, wide / f"{number}.gguf")
    found = walk.walk(wide, most=3)
    assert len(found.files) == 3
    assert [one.reason for one in found.left] == [
        "has more than 3 files and folders: name the ones below it that have models"
    ]

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)  # root may read everything
    assert [one.reason for one in walk.walk(wide).left] == ["cannot be read: permission denied"]


def test_where_programs_keep_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    cache = tmp_path / ".cache"
    assert tool_folders({}).lm_studio == (tmp_path / ".lmstudio/models", cache / "lm-studio/models")
    assert tool_folders({}).hugging_face == (cache / "huggingface/hub",)
    assert tool_folders({}).llama_cpp == (cache / "llama.cpp",)
    found = tool_folders({"HF_HUB_CACHE": "/hub", "HF_HOME": "/hf", "LLAMA_CACHE": "~/llama", "XDG_CACHE_HOME": "/c"})
    assert found.hugging_face == (Path("/hub"), Path("/hf/hub"), Path("/c/huggingface/hub"))
    assert found.llama_cpp == (tmp_path / "llama",)


def test_broken_files_and_those_that_are_no_models_are_left_with_a_reason(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    put(tiny_gguf, folder / "good.gguf")
    put(tiny_gguf, folder / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
    (folder / "text.gguf").write_text("no model")
    (folder / "empty.gguf").touch()
    tiny_lora(folder / "lora.gguf")
    tiny_llava(folder / "eyes.gguf", folder / "tower.gguf")
    store = Store(tmp_path / "models")
    judged, left = judging.judge(tools.plain(folder).models, store)
    assert [str(one.model.name) for one in judged] == ["eyes:latest", "good:latest"]
    told = {one.path.name: one.reason for one in left}
    assert sorted(told) == ["cut.gguf", "empty.gguf", "lora.gguf", "text.gguf", "tower.gguf"]
    assert all(told.values())
    assert told["lora.gguf"] == "is an adapter: `ADAPTER` in a Modelfile adds it to a model"
    assert told["tower.gguf"] == "is a projector and no model"
    assert not (tmp_path / "models").exists(), "looking makes nothing"
    store.close()


def test_what_is_there_already_is_known_and_other_models_keep_their_names(tiny_gguf: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    folder = tmp_path / "f"
    file = put(tiny_gguf, folder / "one-F16.gguf")
    ((first,), _) = judging.judge(tools.plain(folder).models, store)
    stored = take(first.model, store)
    assert stored.weights is not None
    assert store.adopt(file).how == first.how
    if first.how == "hardlink":
        assert file.samefile(store.blob_path(stored.weights.digest))
    file.rename(folder / "another.gguf")
    hub_file(tmp_path / "hub" / "models--o--n", tiny_gguf, "n-F16.gguf")
    tiny_llama(folder / "one-f16.gguf", seed=5, chat_template="{{ messages }} and more")
    found = together([tools.hugging_face(tmp_path / "hub"), tools.plain(folder)])
    judged, left = judging.judge(found.models, store)
    existing = {str(one.model.name): str(one.existing) for one in judged}
    assert existing["hf.co/o/n:F16"] == "one:F16"
    if first.how == "hardlink":
        assert existing["another:latest"] == "one:F16"
    assert [one.reason for one in left] == ['the name "one:F16" is another model\'s: give that one another']
    store.close()


def test_what_fails_leaves_the_store_as_it_was(tiny_gguf: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    put(tiny_gguf, tmp_path / "f" / "m.gguf")
    ((one,), _) = judging.judge(tools.plain(tmp_path / "f").models, store)
    (tmp_path / "f" / "m.gguf").write_bytes(tiny_gguf.read_bytes()[:-100])  # after it was looked at
    with pytest.raises(CorralError):
        take(one.model, store)
    assert store.list() == []
    assert list(store.blobs_folder.glob("sha256-*")) == []
    store.close()


def test_doctor_names_duplicates_and_what_they_take(tiny_gguf: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    folders = tool_folders({"HF_HUB_CACHE": str(tmp_path / "hub"), "LLAMA_CACHE": str(tmp_path / "llama")})
    put(tiny_gguf, tmp_path / "llama" / "linked-F16.gguf")
    ((one,), _) = judging.judge(tools.llama_cpp(tmp_path / "llama").models, store)
    take(one.model, store)
    link = hub_file(tmp_path / "hub" / "models--o--n", tiny_gguf, "n-F16.gguf")
    twin = put(tiny_gguf, tmp_path / "llama" / "twin.gguf")
    other = put(tiny_gguf, tmp_path / "llama" / "other.gguf")
    other.write_bytes(tiny_gguf.read_bytes()[:-1] + b"\0")
    store.close()
    size = tiny_gguf.stat().st_size
    quick = [finding.text for finding in duplicates.examine(tmp_path / "models", folders)]
    assert any(text.startswith(f'"{link}" has the ') for text in quick)
    assert sum("and may be the same" in text for text in quick) >= 2
    read: list[tuple[int, int]] = []
    steps = duplicates.examine(tmp_path / "models", folders, lambda label, total, done: read.append((total, done)))
    texts = [finding.text for finding in steps]
    assert any(text.startswith(f'"{twin}" has the ') for text in texts)
    assert not any(str(other) in text for text in texts)
    assert read[-1][0] == read[-1][1] >= 2 * size
    assert any(text.startswith("up to ") and "can be reclaimed" in text for text in texts)
    assert texts[-1].startswith("other programs have 4 model files of ")
    assert list(duplicates.examine(tmp_path / "none", folders)) == []


def test_adopted_models_answer_and_nothing_of_theirs_changes(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    server = start_server(CORRAL_ENGINE=str(FAKE_ENGINE))
    file = put(tiny_gguf, server.home / ".lmstudio" / "models" / "pub" / "Repo-GGUF" / "Repo-F16.gguf")
    (file.parent / "broken.gguf").write_text("GGUF")
    own = put(tiny_gguf, tmp_path / "own" / "mine.gguf")
    before = {path: path.stat().st_mtime_ns for path in (file, own)}
    shell = Shell(server.home, server.host)
    looked = shell.run("adopt", "--dry-run", str(own.parent))
    assert looked.status == 0, looked.stderr
    assert [line.split()[0] for line in looked.stdout.splitlines()] == ["NAME", "mine:latest", "pub/Repo-GGUF:F16"]
    assert 'broken.gguf" ' in looked.stderr
    assert httpx.get(f"{server.url}/api/tags").json() == {"models": []}
    unasked = shell.run("adopt")
    assert (unasked.status, "--yes" in unasked.stderr) == (1, True)
    asked = shell.terminal("adopt")
    asked.wait_for("Repo-F16.gguf")
    asked.type("n\n")
    refused = asked.finish()
    assert (refused.status, "Adopt this model? [y/N]: " in refused.stderr) == (0, True), refused
    assert httpx.get(f"{server.url}/api/tags").json() == {"models": []}
    done = shell.run("adopt", "--yes", str(own.parent))
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["adopted mine:latest", "adopted pub/Repo-GGUF:F16"]
    body = {"model": "pub/Repo-GGUF:F16", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    answer = httpx.post(f"{server.url}/api/chat", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["message"]["content"]
    again = shell.run("adopt", "--yes", str(own.parent))
    assert again.stdout.count(" there") == 2
    assert "adopted mine" not in again.stdout
    assert httpx.request("DELETE", f"{server.url}/api/delete", json={"model": "mine"}).status_code == 200
    assert before == {path: path.stat().st_mtime_ns for path in (file, own)}
    assert names.parse("pub/repo-gguf:f16").folded in [one.name.folded for one in Store(server.models).list()]
    assert shell.run("adopt", "nowhere").stderr == 'Error: no such file or folder: "nowhere"\n'


def test_what_cannot_be_linked_is_copied_only_when_asked(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (tmp_path / "one").mkdir()
    write_split(parts)
    shell = Shell(tmp_path / "home")
    shell.home.mkdir()
    refused = shell.run("adopt", "--yes", str(parts))
    assert refused.status == 0, refused.stderr
    assert "would copy" in refused.stdout
    assert "would have to be copied: its 3 parts become one file; --copy does it" in refused.stderr
    store = Store(shell.home / ".ollama" / "models")
    assert store.list() == []
    done = shell.run("adopt", "--yes", "--copy", str(parts))
    assert done.status == 0, done.stderr
    ((made),) = store.list()
    assert made.weights is not None
    assert " there" in shell.run("adopt", "--dry-run", str(parts)).stdout
    memory = Path("/dev/shm")
    if memory.is_dir() and memory.stat().st_dev != tmp_path.stat().st_dev:
        tiny_llama(tmp_path / "one" / "one.gguf")
        away = shell.run("adopt", "--yes", str(tmp_path / "one"), OLLAMA_MODELS=str(memory))
        assert "would copy" in away.stdout
        assert away.stderr.startswith(f'one:latest would have to be copied: it is on another disk than "{memory}"')
        assert not (memory / "manifests").exists()
    store.close()
