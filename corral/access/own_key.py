"""The secret by which commands of this machine speak to its server, in a file that only their user reads."""

import contextlib
import ipaddress
import socket
from pathlib import Path

from corral import config
from corral.config.address import Address

FILE_NAME = "corral-key"
_MAX_BYTES = 4096


def path_in(folder: Path) -> Path:
    return folder / FILE_NAME


def write(folder: Path, secret: str) -> None:
    from corral.system import private_files

    private_files.write(path_in(folder), secret.encode() + b"\n")


def read(folder: Path) -> str:
    """The secret; empty where there is none."""
    try:
        with open(path_in(folder), "rb") as file:
            text = file.read(_MAX_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if text.isprintable() and " " not in text else ""


def forget(folder: Path, sha256: str) -> None:
    """Removes the secret, if it is that of a key that has this digest."""
    import hashlib

    secret = read(folder)
    if secret and hashlib.sha256(secret.encode()).hexdigest() == sha256:
        with contextlib.suppress(OSError):
            path_in(folder).unlink(missing_ok=True)


def for_server(settings: config.Config) -> str:
    """The key for the server of the settings: that of the environment, or on this machine the user's own."""
    given = config.api_key()
    return given or (read(settings.home) if is_this_machine(settings.host) else "")


def is_this_machine(address: Address) -> bool:
    """Whether an address is one of this machine's, so that its server may get the secret.

    A name other than localhost is not looked up: whoever answers for it may be anybody.
    """
    if address.is_loopback or address.is_unspecified:
        return True
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address.host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address.host, 0))  # which the system allows for its own addresses only
    except (ValueError, OSError):
        return False
    return True
