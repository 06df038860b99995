"""`adopt`: models of LM Studio, Hugging Face's cache, llama.cpp's and of folders become Corral's, in place.

Works by itself, as `doctor` does, and not through the server: whether a file can be linked into the models folder is
known only by trying, as the user whose files they are, and each file is then read and hashed once and not twice. A
server that runs sees the new models, since it reads the folder for every list. A server on another machine, or one that
runs as another user, has a models folder of its own, of which the files could only be copies: that is `create`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral import config
from corral.cli.display.progress import shown, spinning
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.cli.paths import typed_path
from corral.errors import BadRequest, CorralError, NotFound
from corral.golang.units import byte_text
from corral.system.files import exists

if TYPE_CHECKING:
    from corral.adopting.found import Left
    from corral.adopting.judging import Judged
    from corral.store import Store

HELP = """\
Take over models of LM Studio, Hugging Face, llama.cpp and folders, in place

Finds the models that LM Studio, Hugging Face's cache and llama.cpp's have, and those in folders that you name, shows
them, asks, and makes them models of {Program} by hard links or reflinks: no byte is copied, unless you say --copy, and
nothing of theirs is changed or deleted."""

HOW = {"reflink": "reflink", "hardlink": "link", "copy": "copy"}


@command(
    "adopt [FOLDER...]",
    HELP,
    count=Count(least=0),
    completes=("files", ...),
    flags=[
        Flag("--copy", kind="bool", sentence="Copy what cannot be linked"),
        Flag("--yes", "-y", kind="bool", sentence="Do it without asking"),
        Flag("--dry-run", kind="bool", sentence="Show what would be done, and no more"),
    ],
    settings=("models",),
)
def adopt(arguments: Arguments, copy: bool, yes: bool, dry_run: bool) -> None:
    from corral.store import Store

    named = [_existing(text) for text in arguments]
    store = Store(config.load().config.models)
    try:
        judged, left = _looked_for(named, store)
        for one in left:
            click.echo(printable(f'left: "{one.path}" {one.reason}'), err=True)
        taken = _listed(judged, store.root, copy=copy)
        if taken and not dry_run and _agreed(taken, yes=yes):
            _take(taken, store)
    finally:
        store.close()


def _existing(text: str) -> Path:
    path = typed_path(text).absolute()
    if not exists(path):
        raise NotFound(f'no such file or folder: "{text}"')
    return path


def _looked_for(named: "Sequence[Path]", store: "Store") -> "tuple[Sequence[Judged], Sequence[Left]]":
    """What there is, and what is left where it is."""
    from corral.adopting import judging, tools

    with spinning("looking for models") as say:
        found = tools.everything(config.tool_folders(), named)
        judged, left = judging.judge(found.models, store, lambda model: say(f"reading {printable(str(model.name))}"))
    return judged, (*found.left, *left)


def _listed(judged: "Sequence[Judged]", models: Path, *, copy: bool) -> "list[Judged]":
    """Shows all that was found; those that are to be taken over."""
    if not judged:
        click.echo("no models to adopt were found", err=True)
        return []
    rows = [
        (str(one.model.name), byte_text(one.model.size), _how(one, copy=copy), one.model.tool, _place(one))
        for one in judged
    ]
    print_table(table(("NAME", "SIZE", "HOW", "FROM", "FILE"), rows))
    taken = [one for one in judged if one.existing is None and (copy or one.how != "copy")]
    for one in judged:
        if one.existing is None and one.how == "copy" and not copy:
            click.echo(printable(f"{one.model.name} would have to be copied: {one.reason}; --copy does it"), err=True)
    copied = sum(one.model.size for one in taken if one.how == "copy")
    if copied:
        click.echo(printable(f'{byte_text(copied)} are copied to "{models}"'), err=True)
    return taken


def _place(one: "Judged") -> str:
    """The path of its first file, as people write it."""
    path, home = one.model.parts[0].path, config.user_folder()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _how(one: "Judged", *, copy: bool) -> str:
    if one.existing is not None:
        return "there" if one.existing.folded == one.model.name.folded else f"there: {one.existing}"
    return "would copy" if one.how == "copy" and not copy else HOW[one.how]


def _agreed(taken: "Sequence[Judged]", *, yes: bool) -> bool:
    """`BadRequest` where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadRequest("nobody is there to be asked: give --yes to do it, or --dry-run to only look")
    count = len(taken)
    return click.confirm(f"Adopt {'this model' if count == 1 else f'these {count} models'}?", err=True)


def _take(taken: "Sequence[Judged]", store: "Store") -> None:
    """One after the other; what is wrong with one keeps no other back. `CorralError` at the end when any was."""
    from corral.adopting.taking import take
    from corral.messages import Progress

    failed = 0
    for one in taken:
        name = printable(str(one.model.name))
        try:
            with shown() as display:

                def show(step: Progress, name: str = name) -> None:
                    if step.total:
                        display.advance(f"{name} {step.status}", name, step.total, step.completed)

                take(one.model, store, show)
        except CorralError as error:
            failed += 1
            click.echo(f"{name} was not adopted: {printable(str(error))}", err=True)
        else:
            click.echo(f"adopted {name}")
    if failed:
        raise CorralError(f"{failed} of {len(taken)} models were not adopted")
    click.echo(f"`{program_name()} run {printable(str(taken[0].model.name))}` talks with one", err=True)
