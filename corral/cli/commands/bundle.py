"""`bundle`: a model and the program that runs it in one file. Works by itself: it only reads the store."""

from typing import TYPE_CHECKING

import click

from corral import config
from corral.cli.display.progress import show_steps, shown
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.cli.paths import typed_path
from corral.errors import BadRequest, ModelNotFound, NotFound
from corral.golang.units import byte_text

if TYPE_CHECKING:
    from corral.messages import Progress

HELP = """\
Write a model and the program that runs it into one file

The file is the model's GGUF file with an archive behind it: every program for GGUF files opens it, and
`python3 FILE` runs it: as a conversation, with "serve" as a server, with a question as an answer. It carries the
packages for this Python and platform, or for those that you name, and needs no network; with --light, pip fetches
them at the first start."""


@command(
    "bundle MODEL",
    HELP,
    count=Count(exact=1),
    completes=("models",),
    flags=[
        Flag("--output", "-o", kind="string", sentence="The file to write", files=True),
        Flag(
            "--light", kind="bool", sentence="Carry no packages: pip fetches them at the first start, by their hashes"
        ),
        Flag("--python", kind="string", many=True, sentence="A Python version to run on (for example 3.12); several"),
        Flag("--platform", kind="string", many=True, sentence="A platform to run on, by pip's name for it; several"),
        Flag("--llamafile", kind="string", sentence="Append the model to this llamafile launcher instead", files=True),
        Flag("--force", kind="bool", sentence="Replace the file if it is there"),
    ],
    settings=("models",),
)
def bundle(
    arguments: Arguments,
    output: str,
    light: bool,
    python: tuple[str, ...],
    platform: tuple[str, ...],
    llamafile: str,
    force: bool,
) -> None:
    from corral import names
    from corral.bundle import making
    from corral.store import Store

    if not output:
        raise BadRequest("-o FILE says which file to write")
    if llamafile and (light or python or platform):
        raise BadRequest("--light, --python and --platform are for bundles; a llamafile brings its own program")
    path, name = typed_path(output).absolute(), names.parse(arguments[0])
    store = Store(config.load().config.models)
    try:
        with shown() as display:

            def report(step: "Progress") -> None:
                show_steps([step], display)

            if llamafile:
                size = making.make_llamafile(name, store, typed_path(llamafile), path, report, replaces=force)
            else:
                size = making.make(
                    name, store, path, report, is_light=light, pythons=python, platforms=platform, replaces=force
                )
    except ModelNotFound as error:
        raise NotFound(f"{error}\n`{program_name()} pull` gets it: a bundle is made of a model that is here") from error
    finally:
        store.close()
    start = str(path) if llamafile else f"python3 {output}"
    click.echo(printable(f"wrote {byte_text(size)}; `{start}` runs it"), err=True)
