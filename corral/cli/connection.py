"""Finds the server that the commands talk to; on this machine, starts one when none runs."""

import sys

from corral import config
from corral.access import own_key
from corral.cli.framework.commands import program_name
from corral.client import Client, NotRunning
from corral.config.address import Address
from corral.errors import ConfigError


def connect() -> Client:
    """A client of the running server, which is started if need be.

    `NotRunning` when it would be on another machine, `ConfigError` when the settings do not say which machine.
    """
    loaded = _warn(config.load())
    found = _client(loaded)
    try:
        found.ping()
    except NotRunning as error:
        if not is_ours(found.address):
            raise NotRunning(f'{error}\nOLLAMA_HOST, or "host" in corral.toml, is "{found.address}"') from error
        from corral.cli import background

        background.start(found, loaded)
        return _client(loaded)  # the server may have made the first key
    return found


def client() -> Client:
    """A client of the server that may run. `ConfigError` when the settings do not say on which machine."""
    return _client(_warn(config.load()))


def _warn(loaded: config.Loaded) -> config.Loaded:
    """Says what is wrong with the address."""
    if remark := loaded.remarks.get("host"):
        print(f"Warning: {remark}", file=sys.stderr)
    return loaded


def _client(loaded: config.Loaded) -> Client:
    if not loaded.config.host.port:
        raise ConfigError("the port in OLLAMA_HOST is 0, by which a server takes any; commands need to know which")
    return Client(loaded.config.host, program_name(), own_key.for_server(loaded.config))


def is_ours(address: Address) -> bool:
    """Whether a server of this machine would listen there."""
    return (address.is_loopback or address.is_unspecified) and address.scheme == "http" and not address.path
