"""Corral as it is published: the source distribution and the wheel, built from this checkout."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.conftest import ROOT

LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "dist")


def source_distribution(folder: Path) -> Path:
    """The archive, built in a copy of the checkout, tests and all."""
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=LEFT_OUT)
    _build("--sdist", checkout, folder / "sdist")
    (made,) = (folder / "sdist").glob("*.tar.gz")
    return made


def unpacked(archive: Path, folder: Path) -> Path:
    """The one folder of a source distribution."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


def wheel(source: Path, folder: Path) -> Path:
    """The wheel of an unpacked source distribution."""
    _build("--wheel", source, folder)
    (made,) = folder.glob("*.whl")
    return made


def _build(kind: str, source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "build", kind, "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
