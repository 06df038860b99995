"""The key pair by which a registry knows this machine. Knows its two files and how to sign, nothing of HTTP.

Files as spec cli §2.2 has them: shared with Ollama, so that an account keeps working.
"""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from corral.errors import ConfigError, reason_of
from corral.system import private_files

FILE_NAME = "id_ed25519"
_PUBLIC_MODE = 0o644
_MAX_KEY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key pair. `is_new`: it was made just now, which its owner may want to know."""

    path: Path
    is_new: bool = False
    _private: Ed25519PrivateKey = field(kw_only=True, repr=False)

    @property
    def public_line(self) -> str:
        """`ssh-ed25519 <base64>`, as in `authorized_keys`."""
        return self._private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    @property
    def public_blob(self) -> str:
        """The middle field of the public line: base64 of the key in SSH's wire form."""
        return self.public_line.split()[1]

    def sign(self, data: bytes) -> bytes:
        """The signature's 64 bytes."""
        return self._private.sign(data)

    def authorization(self, data: bytes) -> str:
        """`<public blob>:<base64 signature of data>`, what a registry's token service wants (spec cli §9.1)."""
        return f"{self.public_blob}:{base64.b64encode(self.sign(data)).decode()}"


def load_or_create(folder: Path) -> Key:
    """The key in `folder` (as a rule `~/.ollama`), made when there is none. `ConfigError` if it cannot be used."""
    path = folder / FILE_NAME
    try:
        return Key(path, _private=_load(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f'cannot read the key "{path}": {reason_of(error)}') from error
    try:
        created = _create(folder)
        return Key(path, created, _private=_load(path))
    except OSError as error:
        raise ConfigError(f'cannot make the key "{path}": {reason_of(error)}') from error


def _load(path: Path) -> Ed25519PrivateKey:
    with open(path, "rb") as file:
        text = file.read(_MAX_KEY_BYTES)
    try:
        private = load_ssh_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f'"{path}" is no OpenSSH private key without a passphrase') from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f'"{path}" is no Ed25519 key')
    return private


def _create(folder: Path) -> bool:
    """Whether the pair is ours: when two processes start at once, the first to finish wins."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / FILE_NAME
    if not private_files.create(path, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())):
        return False
    private_files.write(path.with_suffix(".pub"), public + b"\n", _PUBLIC_MODE)
    return True
