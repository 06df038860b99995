"""A bundle made here runs without a network on fresh systems with two versions of Python.

Needs root and `mmdebstrap`.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Shell, shell_without_server
from tests.conftest import add_model
from tests.namespaces import as_root
from tests.rootfs import rootfs

SYSTEMS = {"3.11": "bookworm", "3.13": "trixie"}
"""Releases of Debian by the version of Python in them."""

SCRIPT = """
set -eu
mount -t proc proc "$1/proc"
ip link set lo up 2> /dev/null || python3 -c '
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 1))'
exec chroot "$1" env -i PATH=/usr/bin:/bin HOME=/home/me python3 /model.gguf 'Why is the sky blue? One sentence.'
"""
"""The network of this namespace is its own loopback, and nothing else: `SIOCSIFFLAGS` brings that up."""


@pytest.fixture
def shell(tmp_path: Path, starter_gguf: Path) -> Iterator[Shell]:
    with shell_without_server(tmp_path) as shell:
        add_model(tmp_path / ".ollama" / "models", "starter", starter_gguf)
        yield shell


def fresh_system(python: str, folder: Path) -> Path:
    """The folder of a system, which has devices and a home."""
    root = folder / f"root-{python}"
    root.mkdir()
    subprocess.run([*as_root(), "tar", "-xf", str(rootfs(SYSTEMS[python])), "-C", str(root)], check=True)
    subprocess.run([*as_root(), "mkdir", "-p", str(root / "home" / "me"), str(root / "proc")], check=True)
    return root


def answered(root: Path) -> "subprocess.CompletedProcess[str]":
    command = [*as_root(), "unshare", "--net", "--mount", "--pid", "--fork", "bash", "-c", SCRIPT, "bash", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_it_runs_on_two_pythons_without_a_network(shell: Shell, tmp_path: Path) -> None:
    pythons = [flag for version in SYSTEMS for flag in ("--python", version)]
    command = shell.start("bundle", "starter", "-o", "model.gguf", *pythons)
    said = command.communicate(timeout=600)[1].decode()
    assert command.returncode == 0, said
    for python in SYSTEMS:
        root = fresh_system(python, tmp_path)
        try:
            subprocess.run([*as_root(), "cp", str(tmp_path / "model.gguf"), str(root / "model.gguf")], check=True)
            first = answered(root)
            assert (first.returncode, "unpacking what runs the model, once" in first.stderr) == (0, True), first
            assert first.stdout.strip(), first
            later = answered(root)
            assert (later.returncode, "unpacking" in later.stderr, bool(later.stdout.strip())) == (0, False, True), (
                later
            )
        finally:
            subprocess.run([*as_root(), "rm", "-rf", "--one-file-system", str(root)], check=True)


def test_the_light_form_is_small_fetches_packages_once_and_ends_its_server(
    shell: Shell, tmp_path: Path, starter_gguf: Path
) -> None:
    command = shell.start("bundle", "starter", "-o", "model.gguf", "--light")
    assert command.wait(timeout=600) == 0
    assert (tmp_path / "model.gguf").stat().st_size - starter_gguf.stat().st_size <= 500_000
    variables = shell.environment(CORRAL_BUNDLES=str(tmp_path / "cache"))
    ask: list[str | Path] = [sys.executable, tmp_path / "model.gguf", "Say hello."]
    first = subprocess.run(ask, env=variables, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert (first.returncode, bool(first.stdout.strip())) == (0, True), first
    assert not list((tmp_path / "cache" / "state").glob("*.log"))
    shutil.rmtree(next((tmp_path / "cache").glob("runtime-*")) / "bin")
    again = subprocess.run(ask, env=variables, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert (again.returncode, "unpacking" in again.stderr) == (0, True), again
