"""`quarantine`: the files of models that are not loaded, with the reason, and their release."""

import click

from corral.cli import connection
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.client import Client
from corral.client.answers import Json, member
from corral.errors import BadRequest

HELP = """
List the files of models that are not loaded, or release one

A file comes into quarantine when it fails the checks before its first load, or when loading it crashes the engine
twice in a row. It stays where it is. Deleting the model is all that is to be done about it, unless you trust the file.

  {program} quarantine                            lists them
  {program} quarantine release MODEL|DIGEST       has them loaded all the same, until the checks change
"""


@command(
    "quarantine [release MODEL]",
    HELP.strip(),
    count=Count(most=2),
    completes=("actions", "models"),
    actions={"release": "Have the files of a model loaded all the same"},
    flags=[Flag("--for-good", kind="bool", sentence="Release it for good, also when the checks have changed")],
)
def quarantine(arguments: Arguments, for_good: bool) -> None:
    match arguments:
        case ():
            _list(connection.connect())
        case ("release", model):
            for digest in connection.connect().release(model, for_good=for_good):
                click.echo(f"released {printable(digest)}")
        case _:
            raise BadRequest(f'unknown: "{" ".join(arguments)}"; give nothing, or `release MODEL`')


def _list(client: Client) -> None:
    found = client.quarantine()
    if not found:
        click.echo("no file is in quarantine", err=True)
    for one in found:
        click.echo("\n".join(lines_of(one, program_name())))


def lines_of(file: Json, program: str) -> list[str]:
    """What is said of one file."""
    digest, reason = (printable(member(file, key, str, "")) for key in ("digest", "reason"))
    models = [printable(str(name)) for name in member(file, "models", list, [])]
    head = f"{', '.join(models) or 'no model'}: {digest}"
    if member(file, "released", bool, False):
        how = "for good" if member(file, "for_good", bool, False) else "until the checks change"
        return [head, f"  {reason}", f"  released {how}"]
    return [head, f"  {reason}", f"  `{program} quarantine release {models[0] if models else digest}` loads it"]
