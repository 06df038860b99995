"""`export` and `import`: models carried in one file from machine to machine.

The server reads and writes the file, so it must be one of this machine.
"""

from contextlib import closing

from corral.cli import connection
from corral.cli.display.progress import show_steps, shown
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.cli.paths import check_file, typed_path
from corral.client import Client
from corral.errors import BadRequest


@command(
    "export MODEL [MODEL...] FILE",
    "Write models into an archive, a .tar file",
    count=Count(least=2),
    completes=("models", "models or files", ...),
)
def export(arguments: Arguments) -> None:
    *models, file = arguments
    with shown() as display, closing(_local_server().export(models, typed_path(file))) as steps:
        show_steps(steps, display)


@command(
    "import FILE",
    "Add the models of an archive",
    count=Count(exact=1),
    completes=("files",),
    flags=[Flag("--name", kind="string", sentence="Add only the model of this name")],
)
def import_(arguments: Arguments, name: str) -> None:
    path = typed_path(arguments[0])
    check_file(path)
    with shown() as display, closing(_local_server().import_(path, name)) as steps:
        show_steps(steps, display)


def _local_server() -> Client:
    client = connection.connect()
    if not connection.is_ours(client.address):
        raise BadRequest(f'"{client.address}" is another machine\'s server: it has no access to files of this one')
    return client
