"""Finds the server that the commands talk to; on this machine, starts one when none runs."""

import sys

from corral import config
from corral.cli.framework.commands import program_name
from corral.client import Client, NotRunning
from corral.config.address import Address


def connect() -> Client:
    """A client of the running server, which is started if need be.

    `NotRunning` when it would be on another machine, `ConfigError` when the settings do not say which machine.
    """
    loaded = config.load()
    if remark := loaded.remarks.get("host"):
        print(f"Warning: {remark}", file=sys.stderr)
    client = Client(loaded.config.host, program_name())
    try:
        client.ping()
    except NotRunning as error:
        if not is_ours(client.address):
            raise NotRunning(f'{error}\nOLLAMA_HOST, or "host" in corral.toml, is "{client.address}"') from error
        from corral.cli import background

        background.start(client, loaded)
    return client


def is_ours(address: Address) -> bool:
    """Whether a server of this machine would listen there."""
    return (address.is_loopback or address.is_unspecified) and address.scheme == "http" and not address.path
