"""The program of a bundle, `python3 model.gguf`: unpacks what runs the model, once, and hands over to it.

It stands alone in the bundle as `__main__.py`: the standard library only, and syntax that Python 3.8 reads, so that an
older Python gets a sentence. What it unpacks is checked against hashes, appears whole or not at all, and lies in a
folder of the user's that nobody else may write to. At each start the size and time of every unpacked file is compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from typing import Any

VARIABLE = "CORRAL_BUNDLES"
"""The environment variable that names the folder for what is unpacked."""
USAGE = """\
usage: python3 {name}                 talk with the model
       python3 {name} "a question"    answer and end
       python3 {name} serve           serve the API and the page, on OLLAMA_HOST

What follows is taken as `corral run MODEL` and `corral serve` take it. What runs the model is unpacked once,
into the folder that {variable} names, or else into your cache folder."""


class Refused(Exception):
    """The sentence that the user reads."""


def main() -> int:
    path = os.path.realpath(sys.argv[0])
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(USAGE.format(name=os.path.basename(path), variable=VARIABLE))
        return 0
    try:
        python, cache = _prepared(path)
    except Refused as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    command = [python, "-P", "-m", "corral.cli.bundled", cache, path, *sys.argv[1:]]
    if os.name == "nt":
        return subprocess.call(command)
    os.execv(python, command)


def _prepared(path: str) -> tuple[str, str]:
    """The Python with everything that the model needs, and the cache folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("corral-bundle.json"))
            runtime = described["runtime"]
            target = _target(runtime["targets"])
            cache = _cache()
            place = os.path.join(cache, f"runtime-{_key(runtime, target)}")
            if not _is_whole(place):
                _unpack(archive, runtime, target, place)
            return _python_of(place), cache
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, LookupError, EOFError, NotImplementedError) as error:
        raise Refused(f'"{path}" is damaged: get the file anew ({error})') from error
    except OSError as error:
        if error.filename is None:
            raise Refused(f'"{path}" cannot be unpacked: {error}') from error
        raise Refused(
            f'"{error.filename}": {(error.strerror or str(error)).lower()}\n'
            f"set {VARIABLE} to a folder where files can be written"
        ) from error


def _target(targets: list[dict[str, Any]]) -> dict[str, Any]:
    """The packages for this Python; `Refused` names those that there are."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    machine = platform.machine().lower()
    here = [one for one in targets if (one["system"], one["machine"]) == (sys.platform, machine)]
    if not here:
        names = sorted({f"{one['system']} on {one['machine']}" for one in targets})
        raise Refused(f"this bundle runs on {' and '.join(names)}; this is {sys.platform} on {machine}")
    found = [one for one in here if one["python"] == version]
    if not found:
        names = sorted({one["python"] for one in here}, key=lambda name: [int(part) for part in name.split(".")])
        raise Refused(
            f"this bundle needs Python {' or '.join(names)}; yours is {version}\n"
            f'start it as `python{names[-1]} "{os.path.basename(sys.argv[0])}"`'
        )
    if platform.python_implementation() != "CPython":
        raise Refused(f"this bundle needs CPython; this is {platform.python_implementation()}")
    if sys.platform == "linux":
        name, libc = platform.libc_ver()
        least = found[0]["libc"]
        needed = f"glibc {least[0]}.{least[1]}"
        if name != "glibc":
            raise Refused(f"this bundle needs {needed} or newer; this system has another C library")
        if [int(part) for part in libc.split(".")[:2]] < least:
            raise Refused(f"this bundle needs {needed} or newer; this system has {libc}")
    return found[0]


def _cache() -> str:
    """The folder for what is unpacked, made if need be; `Refused` for one that others could write to."""
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        home = os.path.expanduser("~")
        if sys.platform == "darwin":
            base = os.path.join(home, "Library", "Caches")
        elif os.name == "nt":
            base = os.environ.get("LOCALAPPDATA", os.path.join(home, "AppData", "Local"))
        else:
            base = os.environ.get("XDG_CACHE_HOME", "")
            base = base if os.path.isabs(base) else os.path.join(home, ".cache")
        folder = os.path.join(base, "corral", "bundles")
    folder = os.path.abspath(folder)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    hint = f"set {VARIABLE} to another folder"
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(f'"{folder}" is a link or a file and not a folder; {hint}')
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise Refused(f'"{folder}" belongs to another user; {hint}')
        if status.st_mode & 0o022:
            raise Refused(f'others may write to "{folder}"; take that right from them, or {hint}')
        if not os.access(folder, os.W_OK):
            raise OSError(13, "permission denied", folder)
    return folder


def _key(runtime: dict[str, Any], target: dict[str, Any]) -> str:
    """What tells one runtime from another: its files' hashes, and which Python is below it."""
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    text = json.dumps([runtime["sha256"], target, base, sys.version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _python_of(place: str) -> str:
    return os.path.join(place, "Scripts", "python.exe") if os.name == "nt" else os.path.join(place, "bin", "python")


def _is_whole(place: str) -> bool:
    """Whether every file that was unpacked is there as it was, by size and time."""
    try:
        with open(os.path.join(place, "unpacked.json"), encoding="utf-8") as file:
            known = json.load(file)
        for name, (size, mtime) in known.items():
            status = os.stat(os.path.join(place, name))
            if (status.st_size, status.st_mtime_ns) != (size, mtime):
                return False
    except (OSError, ValueError):
        return False
    return os.access(_python_of(place), os.X_OK)


def _unpack(archive: zipfile.ZipFile, runtime: dict[str, Any], target: dict[str, Any], place: str) -> None:
    print("unpacking what runs the model, once …", file=sys.stderr, flush=True)
    cache = os.path.dirname(place)
    _tidy(cache)
    if importlib.util.find_spec("_lzma") is None:
        raise Refused("this Python was built without lzma, which unpacks the bundle: use another one")
    new = tempfile.mkdtemp(prefix=".new-", dir=cache)
    try:
        import venv

        venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False).create(new)
        site = _site_of(new)
        if not target["wheels"]:
            _install(_checked(archive, runtime, target["requirements"]), site, new)
        for member in [*target["wheels"], runtime["code"]]:
            _unpack_packed(_checked(archive, runtime, member), site)
        _record(new, site)
        _put(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _tidy(cache: str) -> None:
    """Removes what starts that were killed have left half-unpacked, a day ago or longer."""
    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        with contextlib.suppress(OSError):
            if name.startswith((".new-", ".old-")) and time.time() - os.lstat(path).st_mtime > 86_400:
                shutil.rmtree(path)


def _site_of(place: str) -> str:
    if os.name == "nt":
        return os.path.join(place, "Lib", "site-packages")
    return os.path.join(place, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")


def _checked(archive: zipfile.ZipFile, runtime: dict[str, Any], member: str) -> bytes:
    data = archive.read(member)
    if hashlib.sha256(data).hexdigest() != runtime["sha256"][member]:
        raise ValueError(f"{member} has another hash")
    return data


def _unpack_packed(data: bytes, site: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as packed:
        for member in packed:
            file = packed.extractfile(member)
            if file is None:
                raise ValueError(f"{member.name} is no file")
            _write(site, member.name.split("/"), file.read())


def _write(site: str, parts: list[str], data: bytes) -> None:
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise ValueError(f"{'/'.join(parts)} leads out of the folder")
    path = os.path.join(site, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def _install(requirements: bytes, site: str, place: str) -> None:
    """Has pip fetch the packages, each with the hash that it had when the bundle was made."""
    file = os.path.join(place, "requirements.txt")
    with open(file, "wb") as target:
        target.write(requirements)
    if importlib.util.find_spec("pip") is None:
        raise Refused("this bundle fetches packages with pip, which this Python does not have: install it")
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *options, "--require-hashes", "--target", site, "-r", file]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "no reason given")
        raise Refused(f"pip could not fetch the packages that this bundle needs: {reason[:300]}")


def _record(place: str, site: str) -> None:
    known = {}
    for folder, _, names in os.walk(site):
        for name in names:
            path = os.path.join(folder, name)
            status = os.stat(path)
            if not name.endswith(".pyc"):
                known[os.path.relpath(path, place)] = (status.st_size, status.st_mtime_ns)
    with open(os.path.join(place, "unpacked.json"), "w", encoding="utf-8") as file:
        json.dump(known, file)


def _put(new: str, place: str) -> None:
    """Gives a finished folder its name, over one that is damaged; another start of the same bundle may be first."""
    for _ in range(3):
        try:
            os.rename(new, place)
            return
        except OSError:
            if _is_whole(place):
                return
            aside = tempfile.mkdtemp(prefix=".old-", dir=os.path.dirname(place))
            try:
                os.rename(place, os.path.join(aside, "runtime"))
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    os.rename(new, place)


if __name__ == "__main__":
    sys.exit(main())
