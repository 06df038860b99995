"""The program: which commands there are, how one is found and run, and what its user sees when it fails.

The outermost loop of the command line: no traceback ever leaves it (spec cli §1).
"""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple, TextIO, cast

from corral.errors import CorralError, reason_of

if TYPE_CHECKING:
    import click

    from corral.cli.framework.commands import Command


class Entry(NamedTuple):
    """A command: the module and the name in it, imported when it is asked for, and what it does."""

    module: str
    attribute: str
    sentence: str


COMMANDS = {
    "serve": Entry("serve", "serve", "Start {program}"),
    "create": Entry("create", "create", "Create a model"),
    "show": Entry("show", "show", "Show information for a model"),
    "run": Entry("run", "run", "Run a model"),
    "stop": Entry("models", "stop", "Stop a running model"),
    "pull": Entry("transfer", "pull", "Pull a model from a registry"),
    "search": Entry("search", "search", "Search Hugging Face for models to pull"),
    "push": Entry("transfer", "push", "Push a model to a registry"),
    "list": Entry("listing", "list_models", "List models"),
    "ps": Entry("listing", "ps", "List running models"),
    "cp": Entry("models", "cp", "Copy a model"),
    "rm": Entry("models", "rm", "Remove a model"),
    "export": Entry("archive", "export", "Write models into an archive"),
    "import": Entry("archive", "import_", "Add the models of an archive"),
    "bundle": Entry("bundle", "bundle", "Write a model and the program that runs it into one file"),
    "adopt": Entry("adopt", "adopt", "Take over models of LM Studio, Hugging Face and llama.cpp, in place"),
    "config": Entry("config", "config", "Show every setting, its value and where it comes from"),
    "engine": Entry("engine", "engine", "List, build, choose and remove engines"),
    "tune": Entry("tune", "tune", "Measure which settings a model is fastest with on this machine"),
    "keys": Entry("keys", "keys", "List, make and revoke the keys by which clients use the server"),
    "nodes": Entry("nodes", "nodes", "List, drain and describe the machines that models run on"),
    "service": Entry("service", "service", "Have the system start the server"),
    "update": Entry("update", "update", "Show how to update Corral, the way it was installed"),
    "completion": Entry("completion", "completion", "Print the script for completion in bash, zsh or fish"),
    "explain": Entry("explain", "explain", "Show where the time of the last requests went"),
    "quarantine": Entry("quarantine", "quarantine", "List the files of models that are not loaded, or release one"),
    "doctor": Entry("doctor", "doctor", "Find out what is wrong, and what to do about it"),
    "help": Entry("help", "help_", "Help about any command"),
    "version": Entry("help", "version_", "Show version information"),
}
"""The commands in the order of the help page."""

HIDDEN = {"__complete": Entry("completion", "complete", "")}
"""Commands that only scripts of ours call."""

ALIASES = {"start": "serve", "ls": "list"}
CLOSED_PIPE = 141
"""Exit status when the reader of our output has gone, as of a program that SIGPIPE ends."""
INTERRUPTED = 130


def run(argv: Sequence[str]) -> int:
    """Runs the command line `argv`, whose first item is the name it was started under; the exit status."""
    _repair_stdio()
    program = _name(argv[0])
    try:
        status = _dispatch(program, argv[1:])
        sys.stdout.flush()
    except CorralError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon(sys.stdout)
        _abandon(sys.stderr)  # progress goes there
        return CLOSED_PIPE
    except OSError as error:
        _abandon(sys.stdout)
        where = f'"{error.filename}": ' if error.filename else ""
        return fail(where + reason_of(error))
    except Exception as error:
        from corral.config import is_debugging

        if is_debugging():
            raise
        return fail(f"internal error: {type(error).__name__}: {error}\nset OLLAMA_DEBUG=1 to see where")
    return status


def _dispatch(program: str, arguments: Sequence[str]) -> int:
    if list(arguments) in (["--version"], ["-v"]):
        from corral.cli.commands import version

        version.show(program)
        return 0
    import click

    group = root(program)
    try:
        # click's own main would turn interrupts and closed pipes into something else.
        with group.make_context(program, list(arguments)) as ctx:
            group.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        raise CorralError(error.format_message()) from error
    return 0


def root(program: str) -> "click.Group":
    """The root command."""
    import click

    from corral.cli.framework.commands import Group
    from corral.cli.framework.flags import Flag

    def bare(ctx: click.Context, version: bool, verbose: bool, nowordwrap: bool) -> None:
        if version:
            from corral.cli.commands.version import show

            show(program)
            ctx.exit()
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())

    return Group(
        find,
        {name: entry.sentence.format(program=program.capitalize()) for name, entry in COMMANDS.items()},
        name=program,
        help="Large language model runner",
        callback=click.pass_context(bare),
        params=[
            Flag("--version", "-v", kind="bool", sentence="Show version information"),
            Flag("--verbose", kind="bool", sentence="Show timings for response"),
            Flag("--nowordwrap", kind="bool", sentence="Don't wrap words to the next line automatically"),
        ],
    )


def find(name: str) -> "Command | None":
    """The command of that name or alias; only its own module is imported."""
    from corral.cli.framework.commands import Command

    entry = COMMANDS.get(ALIASES.get(name, name)) or HIDDEN.get(name)
    if entry is None:
        return None
    found = getattr(importlib.import_module(f"corral.cli.commands.{entry.module}"), entry.attribute)
    assert isinstance(found, Command)
    return found


def _name(path: str) -> str:
    """The name in help and errors: `ollama` when the program was started under that name, else `corral`."""
    return "ollama" if PurePath(path).stem.lower() == "ollama" else "corral"


def _repair_stdio() -> None:
    """Opens standard streams that are closed, and prints `?` for letters that the terminal's encoding does not have."""
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _nowhere(mode: str) -> TextIO:
    return cast(TextIO, open(os.devnull, mode, encoding="utf-8"))


def fail(sentence: str) -> int:
    """Shows an error; the exit status."""
    from corral.cli.display.text import LAYOUT, printable

    with contextlib.suppress(OSError):
        sys.stdout.flush()
    try:
        print(f"Error: {printable(sentence, keep=LAYOUT)}", file=sys.stderr, flush=True)
    except OSError:
        _abandon(sys.stderr)
    return 1


def _abandon(stream: TextIO) -> None:
    # Python would complain about the unwritten rest when it exits.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
