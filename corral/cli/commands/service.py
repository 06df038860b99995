"""`service`: the server as a service of the system. Works without a server; what it would write is shown first."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral import config
from corral.cli import background, connection
from corral.cli.display.text import LAYOUT, printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.errors import BadRequest, CorralError
from corral.system import processes
from corral.system.current import IS_WINDOWS, PLATFORM

if TYPE_CHECKING:
    from corral.services.recipe import Recipe, Step

ACTIONS = {
    "install": "Show the file and the commands for it, ask, and do it",
    "remove": "Stop the service and take it out again",
    "status": "Show whether it is installed, runs and answers",
}

HELP = """\
Have the system start the server, and start it again when it ends

  {program} service install   Show the file and the commands for it, ask, and do it
  {program} service remove    Stop the service and take it out again; models stay
  {program} service status    Show whether it is installed, runs and answers

On Linux that is a service of systemd, on macOS of launchd, on Windows a task. It gets the settings that are in the
environment now; those of corral.toml are read at each start."""


@command(
    "service ACTION",
    HELP,
    count=Count(exact=1),
    completes=("actions",),
    actions=ACTIONS,
    flags=[
        Flag("--system", kind="bool", sentence="A service of the machine, from its start on, not of your session"),
        Flag("--user", kind="string", sentence="With --system: the user it runs as, whose models it serves"),
        Flag("--yes", "-y", kind="bool", sentence="Do it without asking"),
        Flag("--dry-run", kind="bool", sentence="Show what would be done, and no more"),
    ],
    settings=("host", "models"),
)
def service(arguments: Arguments, system: bool, user: str, yes: bool, dry_run: bool) -> None:
    (action,) = arguments
    if action not in ACTIONS:
        raise BadRequest(f'no action "{action}": there are {", ".join(ACTIONS)}')
    if user and not system:
        raise BadRequest("--user belongs to --system: without, the service is yours")
    loaded = config.load()
    recipe = _recipe(loaded, _user(user) if system else "")
    match action:
        case "install":
            _install(loaded, recipe, yes=yes, dry_run=dry_run)
        case "remove":
            _remove(recipe, yes=yes, dry_run=dry_run)
        case "status":
            _status(loaded, recipe)


def _user(name: str) -> str:
    """Who a service of the system runs as: the one named, or who called `sudo`."""
    if chosen := name or config.sudo_user():
        return chosen
    raise BadRequest("whose models should the service serve? Say --user NAME")


def _recipe(loaded: config.Loaded, user: str) -> "Recipe":
    from corral.services import here
    from corral.services.recipe import Definition

    state = loaded.config.state
    definition = Definition(
        # -P: nothing that lies in the current folder may take the place of a module.
        command=(sys.executable, "-P", "-m", "corral", "serve"),
        environment=config.variables_of(loaded),
        user=user,
        log=Path(f"~{user}/Library/Logs/corral.log").expanduser() if user else state / "serve.log",
    )
    home, folder = config.user_folder(), config.config_folder()
    number = processes.user_number()
    return here.recipe(PLATFORM, definition, home=home, config=folder, state=state, user_number=number)


def _install(loaded: config.Loaded, recipe: "Recipe", *, yes: bool, dry_run: bool) -> None:
    from corral.services import install

    click.echo(f'{recipe.manager} gets the file "{printable(str(recipe.file))}":\n', err=True)
    click.echo(printable(recipe.text, keep=LAYOUT))
    _show_steps("Then these commands run:", recipe.start)
    for remark in recipe.remarks:
        click.echo(f"note: {printable(remark)}", err=True)
    install.is_installed(recipe)  # not over a file of somebody else
    if dry_run or not _agreed("Install the service?", yes=yes):
        return
    is_taken = background.answers(connection.client()) and not install.is_running(recipe)
    with _rights():
        install.install(recipe)
    click.echo(f"installed; what the server logs: {printable(recipe.log)}")
    if is_taken:
        click.echo(
            f"note: another server answers on {loaded.config.host.netloc}; the service takes its place when it ends",
            err=True,
        )


def _remove(recipe: "Recipe", *, yes: bool, dry_run: bool) -> None:
    from corral.services import install

    if not install.is_installed(recipe):
        raise CorralError(f'no service is installed: there is no "{recipe.file}"')
    _show_steps("These commands run:", recipe.stop)
    click.echo(f'"{printable(str(recipe.file))}" is deleted', err=True)
    if dry_run or not _agreed("Remove the service?", yes=yes):
        return
    with _rights():
        install.remove(recipe)
    click.echo("removed")


def _status(loaded: config.Loaded, recipe: "Recipe") -> None:
    """Ends with 1 unless it runs, so that scripts may ask."""
    from corral.services import install

    if not install.is_installed(recipe):
        raise CorralError(f"no service is installed; `{program_name()} service install` does that")
    runs = install.is_running(recipe)
    click.echo(f"file     {printable(str(recipe.file))}")
    click.echo(f"state    {'running' if runs else 'not running'}")
    click.echo(f"answers  {'yes' if background.answers(connection.client()) else 'no'}, on {loaded.config.host.netloc}")
    click.echo(f"log      {printable(recipe.log)}")
    if not runs:
        raise CorralError(f"the service does not run; why is in its log: {recipe.log}")


def _show_steps(head: str, steps: "Sequence[Step]") -> None:
    click.echo(f"{head}\n", err=True)
    for one in steps:
        click.echo(f"  {printable(shlex.join(one.words))}", err=True)
    click.echo(err=True)


def _agreed(question: str, *, yes: bool) -> bool:
    """`BadRequest` where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadRequest("nobody is there to be asked: give --yes to do it, or --dry-run to only look")
    return click.confirm(question, err=True)


@contextmanager
def _rights() -> Iterator[None]:
    """`CorralError` that names `sudo` where it would help."""
    try:
        yield
    except PermissionError as error:
        command = shlex.join([sys.executable, "-m", "corral", "service"])
        hint = f"; services of the system are root's: sudo {command} …" if not IS_WINDOWS else ""
        raise CorralError(f'no permission to write "{error.filename}"{hint}') from error
