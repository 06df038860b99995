"""`tune`: which settings a model is fastest with on this machine. Needs no server, as `engine` does not."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from corral.cli.display import terminal
from corral.cli.display.progress import shown
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from corral.builds.tuning import Other
    from corral.config import Config
    from corral.engine.tuned import Tried, Tuned
    from corral.messages import Progress

HELP = """\
Measure which settings a model is fastest with on this machine

  {program} tune MODEL           Measure, show the table, and keep what is faster for sure
  {program} tune --list          Show what was measured, and whether it is used
  {program} tune MODEL --forget  Remove what was measured for a model

What is kept counts from the next load of the model on, where neither a request nor its Modelfile nor the environment
says otherwise. After an upgrade of the engine it is no longer used until the model is tuned again."""


@command(
    "tune [MODEL]",
    HELP,
    count=Count(least=0, most=1),
    completes=("models",),
    flags=[
        Flag("--dry-run", kind="bool", sentence="Show what is measured, and keep nothing"),
        Flag("--pairs", kind="int", sentence="Pairs of measurements of each setting (default 5)"),
        Flag("--list", kind="bool", sentence="Show what was measured for all models"),
        Flag("--forget", kind="bool", sentence="Remove what was measured for the model"),
    ],
    settings=("models", "state", "tuned", "speculation"),
)
def tune(arguments: Arguments, dry_run: bool, pairs: int, list: bool, forget: bool) -> None:
    from corral.config import load

    if list and (arguments or forget or dry_run or pairs):
        raise BadRequest("--list takes no model and no other flag")
    if not list and not arguments:
        raise BadRequest(f"requires the name of a model: {program_name()} tune MODEL")
    if forget and (dry_run or pairs):
        raise BadRequest("--forget takes no other flag")
    if pairs and not 3 <= pairs <= 100:
        raise BadRequest(f"--pairs is a number from 3 to 100, not {pairs}")
    config = load().config
    if list:
        _list(config)
    elif forget:
        _forget(config, arguments[0])
    else:
        _tune(config, arguments[0], pairs, is_dry=dry_run)


def _list(config: "Config") -> None:
    from corral.builds.tuning import described
    from corral.engine import choice, tuned
    from corral.engine.llama.build import build
    from corral.machine import processor

    found, machine, engine = tuned.everything(config.state), processor.name(), build(choice.current(config).program)
    rows = [
        (one.name, "yes" if config.tuned and not one.misfit(machine, engine) else "no", described(one.settings))
        for one in found
    ]
    print_table(table(("NAME", "USED", "SETTINGS"), rows, width=terminal.width(sys.stdout)))
    for one in found:
        if why := one.misfit(machine, engine):
            click.echo(f"Warning: {printable(f'{one.name}: {why}')}", err=True)
    if found and not config.tuned:
        click.echo("Warning: CORRAL_TUNED is off: none of them is used", err=True)


def _forget(config: "Config", given: str) -> None:
    """By the model's weights, or, where it is gone, by the name that it was tuned under."""
    from corral.builds.models import named
    from corral.engine import tuned

    try:
        digests = [named(config, given)[1].name]
    except NotFound:
        digests = [one.digest for one in tuned.everything(config.state) if given in (one.name, _short(one.name))]
    if not [digest for digest in digests if tuned.forget(config.state, digest)]:
        raise NotFound(f'nothing was measured for "{given}"')
    click.echo(f"forgot what was measured for '{printable(given)}'")


def _short(name: str) -> str:
    return name.removesuffix(":latest")


def _tune(config: "Config", given: str, pairs: int, *, is_dry: bool) -> None:
    import asyncio

    from corral.builds.models import named
    from corral.builds.tuning import PAIRS, Tuning, described, run
    from corral.engine import tuned

    name, weights = named(config, given)
    tuning = Tuning(config, name, weights, others=_others(config), pairs=pairs or PAIRS)
    with shown() as display:

        def show(step: "Progress") -> None:
            display.spin(printable(step.status))

        found = asyncio.run(run(tuning, show))
    print_table(tried_table(found, terminal.width(sys.stdout)))
    for one in found.tried:
        if one.remark:
            click.echo(printable(f"{one.setting} {one.value}: {one.remark}"))
    if is_dry:
        click.echo(f"nothing was kept; it would be: {described(found.settings)}")
        return
    tuned.write(config.state, found)
    click.echo(f"'{printable(name)}' is loaded with: {described(found.settings)}, from its next load on")
    if not config.tuned:
        click.echo("Warning: CORRAL_TUNED is off: what was measured is not used", err=True)


def _others(config: "Config") -> "Sequence[Other]":
    """The engines that are not the one in use; those for GPUs are no comparison."""
    from corral.builds.catalogue import entries
    from corral.builds.tuning import Other
    from corral.engine import choice

    used = choice.current(config)
    if used.name == "CORRAL_ENGINE":
        return ()
    found = [entry for entry in entries(config) if not entry.problem and (entry.backend or "cpu") == "cpu"]
    return [Other(entry.name, entry.program) for entry in found if entry.program != used.program]


def tried_table(found: "Tuned", width: int | None) -> str:
    """A row for each value that was tried."""
    headers = ("SETTING", "TRIED", "PROMPTS", "ANSWERS", "TAKEN")
    return table(headers, [_row(one) for one in found.tried], width=width)


def _row(one: "Tried") -> Sequence[str]:
    if not one.written:
        return one.setting, one.value, "-", "-", "no"
    read, written = (
        f"x{middle:.2f} ({low:.2f}-{high:.2f})"
        for middle, (low, high) in ((one.read, one.read_range), (one.written, one.written_range))
    )
    return one.setting, one.value, read, written, "yes" if one.taken else "no"
