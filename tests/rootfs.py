"""A small Debian with Python in a tar file, of the machine's own package sources. Needs root and `mmdebstrap`."""

import fcntl
import os
import shutil
import ssl
import subprocess
import zlib
from pathlib import Path

from tests.conftest import ROOT
from tests.namespaces import as_root

CACHE = ROOT / ".cache" / "rootfs"
PACKAGES = "python3-venv,ca-certificates,libgomp1"
FEW_PACKAGES = "python3,libgomp1"
"""In a release that is not this machine's: it has to run a program and no more."""


def rootfs(release: str = "") -> Path:
    """The file, of this machine's release or a named one. Another run of tests beside this one waits for it."""
    assert shutil.which("mmdebstrap"), "install the package mmdebstrap"
    packages = PACKAGES if release in ("", _release()) else FEW_PACKAGES
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"{release or _release()}-{zlib.crc32(packages.encode()):x}.tar"
    with open(CACHE / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            part = file.with_suffix(".part.tar")
            command = [
                *as_root(),
                "mmdebstrap",
                "--quiet",
                "--variant=apt",
                f"--include={packages}",
                release or _release(),
                str(part),
            ]
            subprocess.run(command, check=True)
            part.rename(file)
    return file


def certificates() -> Path:
    """The machine's own certificates: its package sources may be signed by one that no fresh system knows."""
    paths = ssl.get_default_verify_paths()
    return Path(os.environ.get("SSL_CERT_FILE") or paths.cafile or paths.openssl_cafile)


def _release() -> str:
    """The name of this machine's release, whose packages it can reach."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))
