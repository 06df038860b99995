"""`stop`, `cp` and `rm`: small changes to the models there are. Source: spec cli §2.5 and §2.8."""

from contextlib import closing

import click

from corral.cli import connection
from corral.cli.framework.commands import Arguments, Count, command
from corral.client import Client
from corral.client.answers import Shown
from corral.errors import CorralError, NotFound


@command("stop MODEL", "Stop a running model", count=Count(exact=1), completes=("running",))
def stop(arguments: Arguments) -> None:
    model = arguments[0]
    try:
        shown = unload(connection.connect(), model)
    except NotFound:
        raise NotFound(f'couldn\'t find model "{model}" to stop') from None
    if shown.remote_model:
        click.echo(f"'{model}' is answered by other servers: there is nothing to stop here", err=True)


def unload(client: Client, model: str) -> Shown:
    """Unloads a model as soon as it is idle; one that is not loaded is left alone. `NotFound` when there is none."""
    shown = client.show(model)
    with closing(client.generate(model, keep_alive=0)) as chunks:
        for _ in chunks:
            pass
    return shown


@command("cp SOURCE DESTINATION", "Copy a model", count=Count(exact=2), completes=("models",))
def cp(arguments: Arguments) -> None:
    source, destination = arguments
    connection.connect().copy(source, destination)
    click.echo(f"copied '{source}' to '{destination}'")


@command("rm MODEL [MODEL...]", "Remove a model", count=Count(least=1), completes=("models", ...))
def rm(arguments: Arguments) -> None:
    client = connection.connect()
    for model in arguments:
        try:
            unload(client, model)
        except NotFound:
            pass  # the error of deleting it is the better one
        except CorralError:
            click.echo(f"Warning: unable to stop model '{model}'", err=True)
        client.delete(model)
        click.echo(f"deleted '{model}'")
