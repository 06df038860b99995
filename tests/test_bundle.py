"""Bundles: their form, what is taken over from them, and the program in them as far as it runs without packages."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from corral import bundle, gguf, llamafile, names
from corral.bundle import Runtime, making
from corral.bundle.packing import NOT_RUN, packed_code, packed_wheels
from corral.bundle.runtime import targets
from corral.bundle.source import without_comments
from corral.bundle.tail import PAGE, Tail
from corral.errors import BadRequest, ModelFileError, NotFound, StoreError
from corral.llamafile import bundles
from corral.store import MediaType, Store
from tests.asking import ask
from tests.bundles import NAME, make_bundle, rewritten, store_with_model
from tests.commands import Shell
from tests.conftest import ROOT, StartServer
from tests.llamafiles import PROGRAM, make_llamafile

BOOTSTRAP = ROOT / "corral" / "bundle" / "bootstrap.py"
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def started(path: Path, cache: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """What `python3 model.gguf` does."""
    environment = {**os.environ, "CORRAL_BUNDLES": str(cache), **variables}
    return subprocess.run([sys.executable, path, *arguments], env=environment, capture_output=True, text=True)


def test_it_stays_the_gguf_file_that_it_begins_with(tmp_path: Path) -> None:
    path, weights = make_bundle(tmp_path), (tmp_path / "tiny.gguf").read_bytes()
    assert path.read_bytes()[: len(weights)] == weights
    whole, prefix = gguf.read(path), gguf.read(tmp_path / "tiny.gguf")
    assert whole.metadata.keys() == prefix.metadata.keys()
    assert whole.tensors == prefix.tensors
    found = bundles.read(path)
    assert (found.name, found.weights.hex) == (NAME, hashlib.sha256(weights).hexdigest())
    for digest, stretch in found.files.items():
        assert hashlib.sha256(path.read_bytes()[stretch.offset :][: stretch.size]).hexdigest() == digest.hex
    assert llamafile.container(tmp_path / "tiny.gguf") is None


def test_it_is_pulled_as_the_model_that_it_was_made_of(start_server: StartServer, tmp_path: Path) -> None:
    server, path = start_server(), make_bundle(tmp_path)
    shell = Shell(tmp_path, server.host)
    assert shell.run("pull", str(path), "--name", "taken").status == 0
    before, after = Store(tmp_path / "bundled-models"), Store(server.models)
    taken = after.manifest(names.parse("taken")).manifest
    assert taken.raw == before.manifest(NAME).manifest.raw
    assert [after.blob_size(layer.digest) for layer in taken.blobs] == [layer.size for layer in taken.blobs]
    (tmp_path / "Modelfile").write_text(f"FROM {path}\nPARAMETER num_ctx 32\n")
    created = shell.run("create", "changed")
    assert created.status == 0, created
    shown = ask(server, "POST", "/api/show", {"model": "changed"}).json
    assert (shown["system"], shown["template"], shown["license"]) == ("You are tiny.", "{{ .Prompt }}", "MIT")
    assert "num_ctx" in shown["parameters"]
    assert shown["parameters"].count("stop") == 1
    assert bundles.read(path).weights.filename in shown["modelfile"]
    assert "MESSAGE user hi" in shown["modelfile"]


def test_adopt_leaves_it_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    path = make_bundle(tmp_path).rename(tmp_path / "mine" / "x.gguf")
    said = Shell(tmp_path).run("adopt", "mine", "--dry-run", OLLAMA_MODELS=str(tmp_path / "models"))
    assert (said.status, f'left: "{path}" is a bundle: `pull` takes' in said.stderr) == (0, True), said


def test_one_that_was_cut_off_is_refused_and_leaves_nothing(start_server: StartServer, tmp_path: Path) -> None:
    server, path = start_server(), make_bundle(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 30)
    refused = Shell(tmp_path, server.host).run("pull", str(path))
    assert refused.status == 1
    assert '"tiny-bundle.gguf" is a bundle that was cut off: get the file anew' in refused.stderr
    assert list((server.models / "blobs").glob("*")) == []
    assert ask(server, "GET", "/api/tags").json == {"models": []}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"../x": b""}, r'a member "\.\./x", whose name leads out of it'),
        ({bundles.MANIFEST: b"{}"}, "the manifest in it is damaged"),
        ({bundles.MANIFEST: None}, 'its archive has no "model/manifest.json"'),
        ({bundles.DESCRIPTION: b"["}, r'"corral-bundle\.json" in its archive cannot be read'),
        ({bundles.DESCRIPTION: b'{"version":2}'}, "it is a bundle of form 2; this program reads form 1"),
        ({bundles.DESCRIPTION: bytes(5 << 20)}, r"in its archive has 5242880 bytes"),
    ],
)
def test_one_that_lies_is_refused(change: Mapping[str, bytes | None], reason: str, tmp_path: Path) -> None:
    path = rewritten(make_bundle(tmp_path), change)
    assert llamafile.container(path) == "bundle"
    with pytest.raises(ModelFileError, match=reason):
        bundles.read(path)


@pytest.mark.parametrize("member", ["name", "weights"])
def test_a_description_of_another_model_is_refused(member: str, tmp_path: Path) -> None:
    path = make_bundle(tmp_path)
    with zipfile.ZipFile(path) as archive:
        described = json.loads(archive.read(bundles.DESCRIPTION))
    described[member] = "../../x" if member == "name" else {**described["weights"], "size": 99}
    with pytest.raises(ModelFileError, match=r"it does not describe a model|its weights are not where it says"):
        bundles.read(rewritten(path, {bundles.DESCRIPTION: json.dumps(described).encode()}))


def test_layers_that_are_missing_compressed_or_changed_are_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path)
    (system,) = bundles.read(path).of("system")
    with pytest.raises(ModelFileError, match=f'the layer "{system}" of its model is missing or has another size'):
        bundles.read(rewritten(path, {bundles.member_of(system): None}))
    (tmp_path / "second").mkdir()
    packed = rewritten(make_bundle(tmp_path / "second"), {}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match=r'has no "corral-bundle\.json"|is compressed'):
        bundles.read(packed)


def test_a_layer_with_other_bytes_is_not_taken(start_server: StartServer, tmp_path: Path) -> None:
    server, path = start_server(), make_bundle(tmp_path)
    (system,) = bundles.read(path).of("system")
    rewritten(path, {bundles.member_of(system): b"You are huge."})
    refused = Shell(tmp_path, server.host).run("pull", str(path))
    assert refused.status == 1
    assert f'the bundle is damaged: its "{system}" has the digest' in refused.stderr
    assert list((server.models / "blobs").glob("*")) == []


def test_the_program_is_found_behind_more_bytes_than_32_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    with path.open("xb", buffering=0) as file:
        file.truncate(5 << 30)  # a hole
        with Tail(file, 5 << 30) as tail:
            tail.add("__main__.py", b"print('found')")
    assert started(path, tmp_path).stdout == "found\n"


def test_the_program_can_be_read_by_old_pythons() -> None:
    tree = ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 8))
    newer = {"tomllib", "zoneinfo", "graphlib"}
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names - newer


def test_help_needs_nothing(tmp_path: Path) -> None:
    said = started(make_bundle(tmp_path), tmp_path / "cache", "--help")
    assert said.stdout.startswith("usage: python3 tiny-bundle.gguf ")
    assert not (tmp_path / "cache").exists()


def target(**changes: Any) -> dict[str, Any]:
    here = {"python": HERE, "system": sys.platform, "machine": os.uname().machine.lower(), "libc": [0, 0]}
    return {**here, "requirements": "", "wheels": ["runtime/x.tar.xz"], **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"python": "3.99"}, f'this bundle needs Python 3.99; yours is {HERE}\nstart it as `python3.99 "tiny-bundle'),
        ({"machine": "z80"}, f"this bundle runs on {sys.platform} on z80; this is {sys.platform} on "),
        ({"libc": [99, 1]}, "this bundle needs glibc 99.1 or newer; this system has "),
        ({}, "is damaged: get the file anew"),  # nothing of what it names is there
    ],
)
def test_what_cannot_run_here_says_so_and_leaves_nothing(
    changes: Mapping[str, Any], sentence: str, tmp_path: Path
) -> None:
    described = {"code": "runtime/code", "targets": [target(**changes)], "sha256": {}}
    said = started(make_bundle(tmp_path, described), tmp_path / "cache")
    assert said.returncode == 1
    assert sentence in said.stderr
    assert "Traceback" not in said.stderr
    assert list((tmp_path / "cache").glob(".*")) == list((tmp_path / "cache").glob("*")) == []


def test_packages_with_another_hash_or_paths_that_lead_out_are_not_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "x.tar.xz"
    with tarfile.open(wheel, "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("a/../../../../evil.py"))
    good = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for number, (digest, sentence) in enumerate([("0" * 64, "has another hash"), (good, "leads out of the folder")]):
        described = {"code": "", "targets": [target()], "sha256": {"runtime/x.tar.xz": digest}}
        (folder := tmp_path / str(number)).mkdir()
        path = make_bundle(folder, described, {"runtime/x.tar.xz": wheel})
        said = started(path, folder / "cache")
        assert (said.returncode, sentence in said.stderr) == (1, True), said
        assert list((folder / "cache").glob(".*")) == list((folder / "cache").glob("*")) == []


def test_a_cache_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, {"code": "", "targets": [target()], "sha256": {}})
    (open_to_all := tmp_path / "open").mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    for name, sentence in (
        ("open", f'others may write to "{open_to_all}"; take that right from them, or set CORRAL_BUNDLES'),
        ("link", f'"{tmp_path / "link"}" is a link or a file and not a folder; set CORRAL_BUNDLES'),
        ("file/below", f'"{tmp_path / "file"}": file exists\nset CORRAL_BUNDLES to a folder'),
        ("/proc/here", "set CORRAL_BUNDLES to a folder where files can be written"),  # as in a home that is read only
    ):
        said = started(path, tmp_path / name)
        assert (said.returncode, sentence in said.stderr) == (1, True), said.stderr
    assert list(open_to_all.iterdir()) == []


def test_a_model_is_in_place_and_a_change_of_the_bundle_is_noticed(tmp_path: Path) -> None:
    path, cache = make_bundle(tmp_path), tmp_path / "cache"
    from corral.bundle.placing import place

    name, root = place(path, cache, lambda _: None)
    store, weights = Store(root), bundles.read(path).weights
    assert store.manifest(name).manifest.raw == bundles.read(path).manifest
    assert store.blob_size(weights) == (tmp_path / "tiny.gguf").stat().st_size
    assert store.blob_path(weights).resolve() == path
    assert store.open_path(weights) == store.blob_path(weights)
    place(path, cache, lambda _: None)
    with path.open("r+b") as file:
        file.seek(store.blob_size(weights) - 1)
        file.write(b"\xff")
    with pytest.raises(StoreError, match=r"was changed after it became the blob"):
        store.open_path(weights)
    with pytest.raises(StoreError, match=r'the weights in ".*" are damaged: get the file anew'):
        place(path, cache, lambda _: None)
    moved = path.rename(tmp_path / "moved.gguf")
    with pytest.raises(StoreError, match="are damaged"):
        place(moved, cache, lambda _: None)


def test_a_damaged_blob_makes_no_bundle(tmp_path: Path) -> None:
    store = store_with_model(tmp_path / "models")
    (weights,) = (layer for layer in store.manifest(NAME).manifest.layers if layer.media_type == MediaType.MODEL)
    with store.blob_path(weights.digest).open("r+b") as file:
        file.seek(weights.size - 1)
        file.write(b"\xff")
    runtime = Runtime({}, {"code": "", "targets": [], "sha256": {}})
    with pytest.raises(StoreError, match=r"was changed after it became the blob|is damaged"):
        bundle.write(NAME, store, runtime, tmp_path / "x.gguf", lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "tiny.gguf"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("tiny",), "-o FILE says which file to write"),
        (("none", "-o", "x.gguf"), "model 'none:latest' not found"),
        (("tiny", "-o", "there.gguf"), 'there.gguf" exists already; --force replaces it'),
        (("tiny", "-o", "no/x.gguf"), 'no such folder: "'),
        (("tiny", "-o", "x.gguf", "--python", "2.7"), 'invalid Python version "2.7"'),
        (("tiny", "-o", "x.gguf", "--python", "3.9"), "Python 3.9 is too old: Corral needs 3.11 or newer"),
        (("tiny", "-o", "x.gguf", "--platform", "amiga"), 'unknown platform "amiga"'),
        (("tiny", "-o", "x.gguf", "--platform", "win_amd64"), "make that bundle on such a system"),
        (("tiny", "-o", "x.gguf", "--llamafile", "tiny.gguf"), "is no launcher: it does not begin as a program does"),
        (("tiny", "-o", "x.gguf", "--llamafile", "none"), '/none"'),
        (
            ("tiny", "-o", "x.gguf", "--llamafile", "a", "--light"),
            "are for bundles; a llamafile brings its own program",
        ),
    ],
)
def test_what_cannot_be_done_says_so_and_writes_nothing(flags: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    store_with_model(tmp_path / "models").close()
    (tmp_path / "there.gguf").write_text("mine")
    before = sorted(tmp_path.iterdir())
    said = Shell(tmp_path).run("bundle", *flags, OLLAMA_MODELS=str(tmp_path / "models"))
    assert (said.status, sentence in said.stderr) == (1, True), said
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.gguf").read_text() == "mine"


def test_named_targets_are_every_python_on_every_platform() -> None:
    found = targets(["3.11", "3.13", "3.11"], ["manylinux_2_28_aarch64"] if sys.platform == "linux" else [])
    assert [target.python for target in found] == ["3.11", "3.13"]
    assert {target.machine for target in found} <= {"aarch64", os.uname().machine.lower()}


def test_a_llamafile_is_made_of_a_launcher_and_read_again(tmp_path: Path) -> None:
    store = store_with_model(tmp_path / "models")
    with_archive = make_llamafile(tmp_path / "launcher", {"usr/share/zone": b"z"})
    (plain := tmp_path / "plain").write_bytes(PROGRAM)
    for launcher in (with_archive, plain):
        path = tmp_path / f"{launcher.name}.llamafile"
        size = making.make_llamafile(NAME, store, launcher, path, lambda _: None)
        found = llamafile.read(path)
        assert found.weights.offset % PAGE == 0
        assert path.read_bytes()[found.weights.offset :][: found.weights.size] == (tmp_path / "tiny.gguf").read_bytes()
        assert found.arguments.parameters == {"num_ctx": 64, "stop": ["x"]}
        assert found.arguments.system == "You are tiny."
        assert path.read_bytes().startswith(PROGRAM)
        assert (path.stat().st_size, path.stat().st_mode & 0o111) == (size, 0o111)
    with zipfile.ZipFile(tmp_path / "launcher.llamafile") as archive:
        assert archive.read("usr/share/zone") == b"z"
        assert archive.testzip() is None
    with pytest.raises(BadRequest, match=r'has "\.args" in it already'):
        making.make_llamafile(NAME, store, tmp_path / "plain.llamafile", tmp_path / "x", lambda _: None)
    with pytest.raises(NotFound, match="no such file"):
        making.make_llamafile(NAME, store, tmp_path / "none", tmp_path / "x", lambda _: None)
    assert not (tmp_path / "x").exists()


async def test_a_wheel_is_packed_as_pip_would_install_it(tmp_path: Path) -> None:
    wheel = tmp_path / "pip-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("pip/a.py", "pip/b.so", "pip-1.data/purelib/pip/c.py", "pip-1.data/scripts/pip", "pip/d/"):
            archive.writestr(name, name)
    steps = [step async for step in packed_wheels([wheel], tmp_path)]
    size = wheel.stat().st_size
    assert [(step.completed, step.total) for step in steps] == [(0, size), (size, size)]
    with tarfile.open(tmp_path / "pip-1-py3-none-any.tar.xz") as packed:
        files = {member.name: packed.extractfile(member) for member in packed}
    assert sorted(files) == ["pip/a.py", "pip/b.so", "pip/c.py"]


class WithoutStrings(ast.NodeTransformer):
    """Takes statements that are only a string out of a tree."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def statements(source: str) -> list[tuple[int, str]]:
    """Every statement of a module but strings and `pass`, with the line on which it begins."""
    tree = WithoutStrings().visit(ast.parse(source))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.stmt) and not isinstance(node, ast.Pass))
    return [(node.lineno, ast.dump(node)) for node in found]


def without_pass(source: str) -> list[tuple[int, str]]:
    return [(line, text.replace("Pass()", "")) for line, text in statements(source)]


def modules_of(folder: Path) -> list[Path]:
    return sorted((folder / "corral").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """What a module imports of Corral's package, wherever in it: `corral/a/b`, where `b` may be a name in a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return {name.replace(".", "/") for name in found if name.startswith("corral")}


def test_nothing_in_a_bundle_imports_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "code.tar.xz").write_bytes(packed_code())
    with tarfile.open(tmp_path / "code.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    here = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in modules_of(tmp_path)}
    all_names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in modules_of(ROOT)}
    here, all_names = ({name.removesuffix("/__init__") for name in names} for names in (here, all_names))
    assert {"corral/doctor", "corral/builds/trial", "corral/cli/commands/engine"} <= all_names - here
    for path in modules_of(tmp_path):
        assert imported(path) & (all_names - here) == set(), path


def test_code_in_a_bundle_is_corrals_without_comments_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "code.tar.xz").write_bytes(packed_code())
    with tarfile.open(tmp_path / "code.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    originals = [path for path in modules_of(ROOT) if not NOT_RUN.match(path.relative_to(ROOT).as_posix())]
    assert len(originals) > 450
    for original in originals:
        source, bundled = (path.read_text() for path in (original, tmp_path / original.relative_to(ROOT)))
        assert without_pass(bundled) == without_pass(source), original
    assert "# " not in (tmp_path / "corral" / "bundle" / "packing.py").read_text()
    program = "import json; from corral.server.serve import ROUTES; from corral.server.http.openapi import document; "
    program += "print(json.dumps(document(ROUTES)))"
    for command in (["-c", program], ["-m", "corral", "--help"], ["-m", "corral", "bundle", "--help"]):
        said = [
            subprocess.run([sys.executable, *command], cwd=place, capture_output=True, text=True, check=True).stdout
            for place in (ROOT, tmp_path)
        ]
        assert len(said[0]) > 300
        assert said[0] == said[1], "what it says of itself is the same"


COMMENTED = '''\
"""Module."""
class A:
    """Only this."""
    """And this."""
X = "# no comment"  # a comment
"""What X is."""
def f() -> str:
    """First
    and ü."""
    return f"{'#'}"
async def g():
    "Text with ü."
    try: pass  # nothing
    finally: "x"
'''
BARE = """\

class A:
    pass

X = "# no comment"

def f() -> str:


    return f"{'#'}"
async def g():

    try: pass
    finally: pass
"""


def test_strings_that_do_something_stay() -> None:
    assert without_comments(COMMENTED) == BARE
    kept = without_comments(COMMENTED, keeps_docstrings=True)
    assert [text for text in ("Module", "Only", "And", "comment", "What", "First", "with ü") if text in kept] == [
        "Only",
        "comment",
        "First",
        "with ü",
    ]
