"""`engine`: which engines there are; one is compiled for this processor, chosen, removed. Needs no server.

As `doctor` does, it works by itself: what it calls is imported inside it.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from corral.cli.display import terminal
from corral.cli.display.progress import Display, shown, spinning
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.errors import BadRequest

if TYPE_CHECKING:
    from corral.builds.building import Building, Outcome
    from corral.builds.catalogue import Entry, Record
    from corral.builds.installing import Installed, Installing
    from corral.builds.trial import Trial
    from corral.config import Config
    from corral.engine.choice import Engine
    from corral.messages import Progress

NOISE = 1.5
"""How many times the lowest ratio the highest is, from where the pairs say little."""

ACTIONS = {
    "list": "Show the engines there are",
    "build": "Compile one for this processor, try it, and use it if it is faster",
    "install": "Fetch one for a GPU, try it, and use it if it is faster",
    "use": "Choose one: the next load of a model takes it",
    "remove": "Remove one that was compiled or installed here",
}

HELP = """\
List, build, choose and remove engines

  {program} engine [list]        Show the engines there are
  {program} engine build [NAME]  Compile one for this processor, try it, and use it if it is faster
  {program} engine install KIND  Fetch one for a GPU (cuda, rocm, vulkan), try it, and use it if it is faster
  {program} engine use NAME      Choose one, by name or path; "wheel" is the one that {Program} brings along
  {program} engine remove NAME   Remove one that was compiled or installed here

A choice counts from the next load of a model on."""


@command(
    "engine [ACTION] [NAME]",
    HELP,
    count=Count(least=0, most=2),
    completes=("actions", "engines"),
    actions=ACTIONS,
    flags=[
        Flag("--model", kind="string", sentence="With build and install: the model to try it with, or a GGUF file"),
        Flag(
            "--keep",
            kind="bool",
            sentence="With build and install: keep an engine that is not faster; it is not chosen",
        ),
        Flag("--package", kind="string", sentence="With install: the Python package to take the engine from"),
        Flag("--anyway", kind="bool", sentence="With install: use it even where it is not faster"),
        Flag("--jobs", kind="int", sentence="With build: how many compilers run at once"),
    ],
    settings=("engines", "engine", "engine_indexes", "engine_packages", "models"),
)
def engine(arguments: Arguments, model: str, keep: bool, package: str, anyway: bool, jobs: int) -> None:
    from corral.config import load

    action, *names = arguments or ("list",)
    if action not in ACTIONS:
        raise BadRequest(f'no action "{action}": there are {", ".join(ACTIONS)}')
    if action in ("use", "remove", "install") and not names:
        raise BadRequest(f"requires the name of an engine: {program_name()} engine {action} NAME")
    if action == "list" and names:
        raise BadRequest(f'"{names[0]}" is one argument too many')
    if action not in ("build", "install") and (model or keep):
        raise BadRequest("--model and --keep belong to `engine build` and `engine install`")
    if action != "build" and jobs:
        raise BadRequest("--jobs belongs to `engine build`")
    if action != "install" and (package or anyway):
        raise BadRequest("--package and --anyway belong to `engine install`")
    if jobs < 0:
        raise BadRequest(f"--jobs is a number above 0, not {jobs}")
    config = load().config
    match action:
        case "list":
            _list(config)
        case "build":
            _build(config, "".join(names), model, keep=keep, jobs=jobs)
        case "install":
            _install(config, names[0], model, package=package, keep=keep, anyway=anyway)
        case "use":
            _use(config, names[0])
        case "remove":
            from corral.builds.catalogue import remove

            remove(config, names[0])
            click.echo(f"removed '{printable(names[0])}'")


def _list(config: "Config") -> None:
    from corral.builds.catalogue import entries
    from corral.engine import choice

    with spinning("looking"):
        found = entries(config)
    current = choice.current(config)
    headers, rows = ("NAME", "KIND", "VERSION", "FOR", "SPEED", "IN USE"), [_row(one, current) for one in found]
    print_table(table(headers, rows, width=terminal.width(sys.stdout), spare=("FOR", "VERSION", "KIND", "SPEED")))
    if current.remark:
        click.echo(f"Warning: {printable(current.remark)}", err=True)
    for entry in found:
        if entry.problem:
            click.echo(f"Warning: {printable(f'{entry.name}: {entry.problem}')}", err=True)


def _row(entry: "Entry", current: "Engine") -> Sequence[str]:
    is_used = entry.program == current.program and bool(entry.program or current.name == entry.name)
    how = "by CORRAL_ENGINE" if current.name == "CORRAL_ENGINE" else "yes"
    return (entry.name, entry.kind, entry.version or "-", entry.backend or "cpu", _speed(entry), how if is_used else "")


def _speed(entry: "Entry") -> str:
    """Of a compiled engine, compared with the wheel's."""
    record: Record | None = entry.record
    if record is None or not record.written:
        return "-"
    return f"prompts x{record.read:.2f}, answers x{record.written:.2f}"


def _use(config: "Config", name: str) -> None:
    from corral.builds.catalogue import find
    from corral.engine import choice

    with spinning("looking"):
        entry = find(config, name)
    if entry.problem:
        raise BadRequest(f'"{entry.name}" cannot be used: {entry.problem}')
    choice.write(config.engines, entry.choice)
    click.echo(f"models are loaded with '{printable(entry.name)}' from now on; those that are loaded stay as they are")
    _warn_of_variable(config)


def _warn_of_variable(config: "Config") -> None:
    if config.engine:
        click.echo(f'Warning: CORRAL_ENGINE is set, and counts more: "{printable(config.engine)}"', err=True)


def _build(config: "Config", name: str, model: str, *, keep: bool, jobs: int) -> None:
    import asyncio

    from corral.builds.building import NAME, Building
    from corral.builds.models import file_of
    from corral.machine.processor import features

    file = file_of(config, model)
    building = Building(config, file, features(), name=name or NAME, keep=keep, jobs=jobs)
    with shown() as display:
        asyncio.run(_shown(building, display))
    for line in outcome_lines(building.outcome, program_name()):
        click.echo(printable(line))
    _warn_of_variable(config)
    if building.outcome.trial.difference:
        click.get_current_context().exit(1)


def _install(config: "Config", kind: str, model: str, *, package: str, keep: bool, anyway: bool) -> None:
    import asyncio

    from corral.builds.installing import Installing
    from corral.builds.models import file_of

    installing = Installing(config, kind, file_of(config, model), package=package, keep=keep, anyway=anyway)
    with shown() as display:
        asyncio.run(_shown(installing, display))
    for line in installed_lines(installing.outcome, program_name()):
        click.echo(printable(line))
    _warn_of_variable(config)
    if installing.outcome.trial.difference:
        click.get_current_context().exit(1)


def installed_lines(outcome: "Installed", program: str) -> Sequence[str]:
    """What became of an installation, for a person."""
    trial = outcome.trial
    if trial.difference:
        return ("the engine answers differently from the wheel's, and was not taken:", f"  {trial.difference}")
    lines = [f"computes on {device}" for device in outcome.devices]
    lines += [f"version {version} was built for another processor" for version in outcome.passed_over]
    lines += [
        f"{outcome.what} {outcome.version}, compared with the wheel's in pairs (above 1 is faster):",
        *ratio_lines(trial),
    ]
    if outcome.chosen:
        lines.append(f"models are loaded with '{outcome.name}' from now on; `{program} engine use wheel` goes back")
    elif outcome.kept:
        lines.append(f"it is kept, not used: `{program} engine use {outcome.name}` chooses it")
    else:
        lines.append("it is not faster for sure, and was not kept; with --keep it would be, with --anyway it is used")
    return lines


async def _shown(building: "Building | Installing", display: Display) -> None:
    from contextlib import aclosing

    async with aclosing(building.steps()) as steps:
        async for step in steps:
            _show(step, display)


def _show(step: "Progress", display: Display) -> None:
    from corral.builds.building import COMPILING

    message = printable(step.status)
    if not step.digest:
        display.spin(message)
    elif step.digest == COMPILING:
        display.advance(step.digest, message, step.total, step.completed, size=str)
    else:
        display.advance(step.digest, message, step.total, step.completed)


def outcome_lines(outcome: "Outcome", program: str) -> Sequence[str]:
    """What became of a build, for a person."""
    trial = outcome.trial
    if trial.difference:
        return (
            "the compiled engine answers differently from the wheel's, and was not taken:",
            f"  {trial.difference}",
        )
    lines = []
    if outcome.passed_over:
        lines.append("a build with all features of the processor is ended by it; this one has fewer")
    lines += [
        f"llama.cpp {outcome.version}, compared with the wheel's in pairs (above 1 is faster):",
        *ratio_lines(trial),
    ]
    if outcome.chosen:
        lines.append(f"models are loaded with '{outcome.name}' from now on; `{program} engine use wheel` goes back")
    elif outcome.kept:
        lines.append(f"it is kept, not used: `{program} engine use {outcome.name}` chooses it")
    else:
        lines.append("it is not faster for sure, and was not kept; with --keep it would be")
    if not outcome.chosen and trial.read_range[1] > NOISE * trial.read_range[0]:
        lines.append("the pairs differ much: this machine does other work, and a build when it is idle says more")
    return lines


def ratio_lines(trial: "Trial") -> Sequence[str]:
    """How fast an engine is beside the wheel's."""
    return (
        f"  prompts  x{trial.read:.2f}  ({trial.read_range[0]:.2f} to {trial.read_range[1]:.2f})",
        f"  answers  x{trial.written:.2f}  ({trial.written_range[0]:.2f} to {trial.written_range[1]:.2f})",
        f"  it is faster in {trial.share:.0%} of the pairs",
    )
