"""Whether the server wants keys, the first of them, and what its user is told of that at the start."""

import ipaddress
import logging
import socket
import sys

from corral.access import own_key
from corral.access.audit import AuditLog
from corral.access.file import KeyFile
from corral.access.keys import Wish
from corral.config import Config
from corral.errors import ConfigError, CorralError
from corral.server.http.access import Access

log = logging.getLogger(__name__)

FIRST = Wish(name="first", scope="admin")

_OPEN = (
    "NO KEY IS ASKED FOR: everyone who reaches %s may use, replace and delete the models of this server, "
    "since --insecure-no-auth or CORRAL_INSECURE_NO_AUTH says so; without it, clients need a key"
)

_MADE = """Clients of this server need a key. The first one was made, which may do everything:

{shown}

Commands of this machine use it by themselves. Others give it like this:

    corral, Ollama's client for Python   OLLAMA_API_KEY=KEY in the environment
    other clients of Ollama's API        the header "Authorization: Bearer KEY"
    clients of OpenAI's API              api_key="KEY"
    clients of Anthropic's API           api_key="KEY", which they send as x-api-key
    the page in the browser              asks for it

`corral keys create NAME` makes further keys, for some models only and with limits if you like.
"""


def access_to(config: Config, listener: socket.socket) -> Access:
    """Who may use the server that listens there; makes the first key if one is needed. `ConfigError`, `CorralError`."""
    if config.insecure_no_auth and config.require_key:
        raise ConfigError("CORRAL_INSECURE_NO_AUTH and CORRAL_REQUIRE_KEY exclude each other")
    is_local = _is_loopback(listener)
    is_needed = config.require_key or not (is_local or config.insecure_no_auth)
    file = KeyFile(config.home)
    if is_needed:
        _ensure_key(config, file)
    elif not is_local:
        log.warning(_OPEN, shown(listener))
    return Access(file, AuditLog(config.state), is_needed=is_needed, is_local=is_local)


def _ensure_key(config: Config, file: KeyFile) -> None:
    """Makes the first key if there is none, and shows it once: to a person, or as the place where it lies."""
    if file.read():
        return
    key, secret = file.add(FIRST)
    try:
        own_key.write(config.home, secret)
    except OSError as error:
        file.revoke(key.id)
        path = own_key.path_in(config.home)
        raise CorralError(f'cannot write the first key to "{path}": {error.strerror or error}') from error
    place = own_key.path_in(config.home)
    if sys.stdout.isatty():
        shown = f'    {secret}\n\nIt is shown this once; "{place}" keeps it for you alone.'
    else:  # what reads this keeps it where others read
        shown = f'    It lies in "{place}", which only you can read.'
    print(_MADE.format(shown=shown), flush=True)


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def shown(listener: socket.socket) -> str:
    """Where it listens, as `host:port`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
