"""The server's address: who answers there, who holds the port; and the proxies that downloads go through."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
from yarl import URL

from corral import EMULATES, __version__
from corral.access import own_key
from corral.client import Client, KeyRefused
from corral.client.answers import Version
from corral.config import Config
from corral.config.address import Address
from corral.doctor.findings import Finding
from corral.errors import CorralError, Unreachable
from corral.names import DEFAULT_HOST
from corral.sources.registry.proxies import proxy_for

SUBJECT = "Server"
PROXIES = "Proxies"

SECONDS = 5.0
"""How long a connection may take."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What was found at the address. `version` is None where nothing answers like Ollama; `error` says how it does."""

    is_taken: bool
    version: Version | None = None
    error: str = ""
    wants_key: bool = False
    holder: str = ""
    """The process that listens there, where that can be known."""


def examine(config: Config) -> Iterator[Finding]:
    """The address of the settings, and the proxies of the environment."""
    yield from judged(config.host, look(config.host, own_key.for_server(config)))
    yield from reachable(config)
    yield from proxies(config.hub)


def look(address: Address, key: str = "") -> Answering:
    """Asks the server that listens there for its version, with a key if one is given."""
    try:
        socket.create_connection((address.to_connect, address.port), SECONDS).close()
    except (OSError, UnicodeError) as error:
        return Answering(False, error=(getattr(error, "strerror", None) or str(error)).lower())
    try:
        return Answering(True, Client(address, key=key).version(), holder=_holder(address.port))
    except KeyRefused as error:
        return Answering(True, error=str(error), wants_key=True, holder=_holder(address.port))
    except CorralError as error:
        return Answering(True, error=str(error), holder=_holder(address.port))


def _holder(port: int) -> str:
    """`name (process 123)` of who listens at a port of this machine; empty where the system does not say."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return f"{psutil.Process(one.pid).name()} (process {one.pid})"
    except (psutil.Error, OSError):
        pass
    return ""


def judged(address: Address, found: Answering) -> Iterator[Finding]:
    """What to say of the address."""
    by = f", held by {found.holder}" if found.holder else ""
    other_port = "set OLLAMA_HOST to another port: `OLLAMA_HOST=127.0.0.1:11500 corral serve`"
    is_here = address.is_loopback or address.is_unspecified
    if not found.is_taken:
        if is_here and address.scheme == "http":
            yield Finding(SUBJECT, "ok", f"none runs at {address.netloc}; the next command starts one")
        else:
            remedy = "start it there, or unset OLLAMA_HOST for this machine"
            yield Finding(SUBJECT, "wrong", f"no server answers at {address}: {found.error}", remedy)
    elif found.wants_key:
        yield Finding(SUBJECT, "wrong", found.error, "see docs/keys.md; the server's first key lies in its CORRAL_HOME")
    elif found.version is None:
        remedy = f"end that program, or {other_port}" if is_here else "see OLLAMA_HOST"
        yield Finding(
            SUBJECT, "wrong", f"something else than Corral answers at {address.netloc}{by}: {found.error}", remedy
        )
    elif not found.version.corral:
        remedy = f"end it to have Corral serve there (it uses the same models), or {other_port}"
        text = f"Ollama {found.version.ollama} answers at {address.netloc}{by}: commands go to it, not to Corral"
        yield Finding(SUBJECT, "note", text, remedy)
    elif found.version.corral != __version__:
        remedy = "start it anew, so that both are the same: end it and run `corral serve`"
        text = (
            f"a server of Corral {found.version.corral} answers at {address.netloc}{by}; this command is {__version__}"
        )
        yield Finding(SUBJECT, "wrong", text, remedy)
    else:
        yield Finding(SUBJECT, "ok", f"Corral {__version__} (as Ollama {EMULATES}) answers at {address.netloc}{by}")


def reachable(config: Config) -> Iterator[Finding]:
    """Whether other machines can reach a server with these settings, and what they need."""
    address = config.host
    if address.is_loopback and not address.is_port_only:
        return
    text = f"other machines can reach a server at {address.netloc}"
    if config.insecure_no_auth:
        remedy = "unset CORRAL_INSECURE_NO_AUTH, or for this machine alone: OLLAMA_HOST=127.0.0.1"
        yield Finding(SUBJECT, "wrong", f"{text}, and do everything without a key", remedy)
    else:
        yield Finding(SUBJECT, "ok", f"{text}, with a key (`corral keys`)")


def proxies(hub: str) -> Iterator[Finding]:
    """Those that requests to the usual sources of models go through."""
    sources: dict[URL | None, list[str]] = {}
    for name, url in (("Ollama's registry", f"https://{DEFAULT_HOST}"), ("Hugging Face", hub)):
        try:
            sources.setdefault(proxy_for(URL(url)), []).append(name)
        except Unreachable as error:
            yield Finding(PROXIES, "wrong", f"{name}: {error}", "see HTTPS_PROXY, HTTP_PROXY and ALL_PROXY")
    for proxy, names in sources.items():
        which = " and ".join(names)
        if proxy is None:
            yield Finding(PROXIES, "ok", f"{which}: asked directly, no proxy is set")
        elif _connects(proxy):
            yield Finding(PROXIES, "ok", f"{which}: asked through {_shown(proxy)}")
        else:
            text = f"{which}: the proxy {_shown(proxy)} does not answer"
            yield Finding(PROXIES, "wrong", text, "see HTTPS_PROXY, HTTP_PROXY and ALL_PROXY")


def _shown(proxy: URL) -> str:
    """Without a password."""
    return str(proxy.with_user(None))


def _connects(proxy: URL) -> bool:
    try:
        socket.create_connection((proxy.host or "", proxy.port or 1080), SECONDS).close()
    except OSError:
        return False
    return True
