"""Where a server listens and clients go, as `OLLAMA_HOST` says it. Source: spec cli §13."""

import ipaddress
from dataclasses import dataclass, field, replace

from corral.errors import BadRequest

DEFAULT_PORT = 11434
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens and clients go: `[scheme://]host[:port][/path]`."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    scheme: str = "http"
    path: str = ""
    is_port_only: bool = field(default=False, compare=False)
    """Whether no host was named (`:1234`): clients go to this machine, a server listens on every interface."""

    @property
    def to_listen(self) -> "Address":
        """The same for a server, whose host is empty when it listens on every interface."""
        return replace(self, host="") if self.is_port_only else self

    @property
    def to_connect(self) -> str:
        """The host that a client connects to: this machine where the address means every interface."""
        if not self.is_unspecified:
            return self.host
        return "::1" if ":" in self.host else "127.0.0.1"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def is_unspecified(self) -> bool:
        """Whether it means every interface (`0.0.0.0`, `::`, none); a client then goes to this machine."""
        if not self.host:
            return True
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """`[scheme://]host[:port][/path]`; the default address for an empty text.

    The port is 80 or 443 when a scheme is given without one; a bad port falls back to that default (spec cli §13).
    `BadRequest` for any other text that cannot be read; its sentence leaves out a user name and password.
    """
    return address_and_port(text)[0]


def address_and_port(text: str) -> tuple[Address, str]:
    """An address, and its port as it was written when that cannot be read; else empty."""
    if "@" in text:  # anywhere: a password with a slash in it would count as a path, and be shown
        raise BadRequest(f'"{without_password(text)}" has a user name or a password, which are not supported')
    scheme, separator, rest = text.partition("://") if "://" in text else ("http", "", text)
    scheme = scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    if text == "ollama.com":
        scheme, default = "https", 443
    netloc, slash, path = rest.partition("/")
    is_slip = not separator and netloc.startswith(("http:", "https:"))  # a slash is missing
    if is_slip or not scheme.isalnum() or (text and not netloc):
        raise _no_address(text)
    host, port = _host_and_port(netloc, text)
    is_port_only = bool(netloc) and not host
    address = Address(host or "127.0.0.1", default, scheme, (slash + path).rstrip("/"), is_port_only)
    if not port:
        return address, ""
    if not (port.isascii() and port.isdigit() and len(port) < 20 and int(port) <= MAX_PORT):
        return address, port
    return replace(address, port=int(port)), ""


def _host_and_port(netloc: str, text: str) -> tuple[str, str]:
    """Both as they are written, the host in lower case; either may be empty. `BadRequest` for what is no host."""
    try:
        if netloc.startswith("["):
            host, bracket, rest = netloc[1:].partition("]")
            if not bracket or rest[:1] not in ("", ":"):
                raise ValueError(netloc)
            return str(ipaddress.IPv6Address(host)), rest[1:]
        if netloc.count(":") > 1:
            return str(ipaddress.IPv6Address(netloc)), ""
    except ValueError:
        raise _no_address(text) from None
    host, _, port = netloc.partition(":")
    if not all(letter.isalnum() or letter in "-._" for letter in host):
        raise _no_address(text)
    return host.lower(), port


def _no_address(text: str) -> BadRequest:
    return BadRequest(f'"{text}" is no address; it must look like host:port or http://host:port')


def without_password(text: str) -> str:
    """The text of an address with `…` in the place of a user name and password."""
    before, at, after = text.rpartition("@")
    scheme, separator, _ = before.partition("://")
    kept = scheme + separator if separator and scheme.isalnum() else ""
    return f"{kept}…@{after}" if at else text
