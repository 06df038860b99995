"""A real registry for tests: Debian's `docker-registry` on a free loopback port, plain, with passwords or with tokens.

Also what a test needs to look into it from outside, without our own code: putting models in, and reading them back; and
the proxy that comes between, to break things (`fault_proxy.py`).
"""

import hashlib
import json
import random
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.ollama.image."


@dataclass(frozen=True)
class RegistryServer:
    """A registry that answers at `url`; `headers` let an administrator in."""

    url: str
    folder: Path
    headers: Mapping[str, str]

    @property
    def host(self) -> str:
        return self.url.rpartition("://")[2]

    def request(self, method: str, path: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
        """Status, body and location of an answer; `path` may be a whole URL."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(urljoin(self.url, path), data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=_UNVERIFIED) as response:
                return response.status, response.read(), response.headers.get("Location", "")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), ""

    def put_blob(self, repository: str, data: bytes) -> str:
        """Its digest."""
        digest = digest_of(data)
        status, _, location = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert status == 202, status
        address = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        status, body, _ = self.request("PUT", address, data, Content_Type="application/octet-stream")
        assert status == 201, body
        return digest

    def put_manifest(self, repository: str, tag: str, raw: bytes, media_type: str = MANIFEST) -> None:
        status, body, _ = self.request("PUT", f"/v2/{repository}/manifests/{tag}", raw, Content_Type=media_type)
        assert status == 201, body

    def put_model(self, repository: str, tag: str, **layers: bytes) -> bytes:
        """Puts in a model whose layers are of these kinds (`model=…, template=…`); its manifest."""
        for data in (*layers.values(), CONFIG_BYTES):
            self.put_blob(repository, data)
        raw = manifest_of(layers)
        self.put_manifest(repository, tag, raw)
        return raw

    def manifest(self, repository: str, tag: str, media_type: str = MANIFEST) -> bytes:
        status, body, _ = self.request("GET", f"/v2/{repository}/manifests/{tag}", Accept=media_type)
        assert status == 200, body
        return body

    def blob(self, repository: str, digest: str) -> bytes:
        status, body, _ = self.request("GET", f"/v2/{repository}/blobs/{digest}")
        assert status == 200, body
        return body


_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE

CONFIG_BYTES = b'{"model_format":"gguf","model_family":"llama","architecture":"amd64","os":"linux"}'


def manifest_of(layers: Mapping[str, bytes], config: bytes = CONFIG_BYTES) -> bytes:
    """The manifest of a model with these layers, laid out as a registry of Ollama's gives it."""

    def entry(media_type: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": entry(CONFIG, config),
        "layers": [entry(LAYER + kind, data) for kind, data in layers.items()],
    }
    return json.dumps(document, indent=3).encode()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def noise(size: int, seed: int) -> bytes:
    """Bytes that look like nothing, the same every time."""
    return random.Random(seed).randbytes(size)


@contextmanager
def running_registry(
    folder: Path,
    *,
    auth: Mapping[str, Any] | None = None,
    tls: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[RegistryServer]:
    """Starts the registry with its data below `folder`. `auth` and `tls` are those sections of its configuration."""
    program = shutil.which("docker-registry")
    assert program, "these tests need Debian's docker-registry: apt-get install docker-registry"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "not a secret", **({"tls": tls} if tls else {})},
        **({"auth": auth} if auth else {}),
    }
    file = folder / "config.yml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    log = folder / "registry.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [program, "serve", str(file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder
        )
    try:
        yield RegistryServer(f"http{'s' if tls else ''}://{_announced(process, log)}", folder, headers or {})
    finally:
        process.terminate()
        process.wait(20)


def _announced(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The address in its log; it is bound by then."""
    words = "listening on "
    with open(log, errors="replace") as lines:
        text = ""
        while words not in text or not text.endswith("\n"):
            assert process.poll() is None, f"the registry ended with {process.returncode}: {text}"
            text += lines.readline()
    return text.split(words, 1)[1].split('"')[0].split()[0].rstrip(",")


@dataclass(frozen=True)
class FaultProxy(RegistryServer):
    """The registry as clients see it through the proxy; `elsewhere` is the proxy's second address."""

    elsewhere: str

    def rules(self, *rules: Mapping[str, Any]) -> None:
        """Sets what is to go wrong from now on, and empties the log."""
        assert self.request("PUT", "/_faults/rules", json.dumps(rules).encode())[0] == 200

    def point_at(self, url: str) -> None:
        assert self.request("PUT", "/_faults/upstream", url.encode())[0] == 200

    def wait_until_held(self, count: int = 1) -> None:
        """Returns once rules hold so many answers back."""
        assert self.request("GET", f"/_faults/held?count={count}")[0] == 200

    def release(self) -> None:
        assert self.request("POST", "/_faults/release", b"")[0] == 200

    def log(self, path: str = "") -> list[dict[str, Any]]:
        """The requests since the last `rules` whose path has `path` in it."""
        return [entry for entry in json.loads(self.request("GET", "/_faults/log")[1]) if path in entry["path"]]

    def sent(self, path: str = "/blobs/") -> int:
        """Bytes of bodies sent in answer to those requests."""
        return sum(entry["sent"] for entry in self.log(path))


@contextmanager
def running_proxy(upstream: str = "") -> Iterator[FaultProxy]:
    """Starts the proxy in front of the registry at this URL."""
    command = [sys.executable, str(Path(__file__).with_name("fault_proxy.py")), "--upstream", upstream]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        try:
            yield FaultProxy(addresses["registry"], Path(), {}, addresses["elsewhere"])
        finally:
            process.terminate()


def basic_auth(folder: Path, users: Mapping[str, str]) -> dict[str, Any]:
    """The `auth` section for these users and passwords, made with Apache's own `htpasswd`."""
    program = shutil.which("htpasswd")
    assert program, "these tests need htpasswd: apt-get install apache2-utils"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "htpasswd"
    lines: Sequence[str] = [_htpasswd(program, user, password) for user, password in users.items()]
    file.write_text("\n".join(lines) + "\n")
    return {"htpasswd": {"realm": "the realm", "path": str(file)}}


def _htpasswd(program: str, user: str, password: str) -> str:
    command = [program, "-niBC", "4", user]
    return subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout.strip()
