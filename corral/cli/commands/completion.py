"""`completion`: the script by which a shell completes our command lines, and the hidden command that it asks.

The script calls `__complete -- WORD... TYPED`, all words behind the program's name and the part of one that was typed.
The answer is a line `words` or `files` (also a path may be meant), and a line for each candidate: the word, a tab, what
it stands for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral.cli.framework.commands import Arguments, Count, Group, command, program_name
from corral.cli.framework.flags import Flag
from corral.errors import BadRequest

if TYPE_CHECKING:
    from corral.cli.completion.candidates import Candidate

SCRIPTS = {"bash": "bash.sh", "zsh": "zsh.sh", "fish": "fish.fish"}

HELP = """\
Print the script that completes commands, flags and models when you press Tab

With --install, every new shell has it: a line is added to the file that the shell reads when it starts, unless it is
there. By hand, that line is
  bash   source <({program} completion bash)       in ~/.bashrc
  zsh    source <({program} completion zsh)        in ~/.zshrc
  fish   {program} completion fish | source        in ~/.config/fish/config.fish"""


@command(
    "completion SHELL",
    HELP,
    count=Count(exact=1),
    completes=("shells",),
    flags=[Flag("--install", kind="bool", sentence="Have every new shell complete")],
    settings=(),
)
def completion(arguments: Arguments, install: bool) -> None:
    from corral.cli import completion as package

    if (script := SCRIPTS.get(arguments[0])) is None:
        raise BadRequest(f'no completion for "{arguments[0]}": the shells are {", ".join(SCRIPTS)}')
    if install:
        from corral.cli.completion.installing import install as add

        add(arguments[0], program_name())
        return
    folder = Path(package.__file__).parent
    click.echo((folder / script).read_text("utf-8").replace("@PROGRAM@", program_name()), nl=False)


@command("__complete", "Print what the word that is being typed may become", count=Count(least=1), settings=())
@click.pass_context
def complete(ctx: click.Context, arguments: Arguments) -> None:
    from corral.cli.completion.candidates import Candidate, Source, candidates
    from corral.cli.completion.models import names

    root = ctx.find_root().command
    assert isinstance(root, Group)
    source = Source(
        commands=[Candidate(name, sentence) for name, sentence in root.table.items()],
        flags=[parameter for parameter in root.params if isinstance(parameter, Flag)],
        find=root.find,
        models=names,
        shells=tuple(SCRIPTS),
        engines=_engine_names,
    )
    found = candidates(arguments[:-1], arguments[-1], source)
    click.echo("files" if found.files else "words")
    for word, sentence in found.words:
        click.echo(f"{word}\t{sentence}")


def _engine_names() -> "Sequence[Candidate]":
    from corral.cli.completion.engines import names

    return names()
