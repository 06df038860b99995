"""`doctor`: what is wrong with this installation, and what to do about it. Works with a server and without one.

The command that looks itself: the examination is imported inside it, as the server is inside `serve`.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from json import dumps
from typing import TYPE_CHECKING

import click

from corral.cli.display import terminal
from corral.cli.display.progress import Display, shown, spinning
from corral.cli.display.text import filled, printable
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag

if TYPE_CHECKING:
    from corral.doctor import Finding, Level

WIDTH = 100
"""Columns where the output is no terminal, and at most."""
MARKS = {"ok": "ok", "note": "note", "wrong": "WRONG"}
COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


@command(
    "doctor",
    "Find out what is wrong, and what to do about it",
    count=Count(exact=0),
    flags=[
        Flag("--verify", kind="bool", sentence="Read every file of every model and compare its digest"),
        Flag("--json", kind="bool", sentence="Print what was found as JSON"),
    ],
    settings=("host", "models", "engine"),
)
def doctor(arguments: Arguments, verify: bool, json: bool) -> None:
    from corral.doctor import as_json, examine

    found: list[Finding] = []
    with _progress(verify) as progress:
        for finding in _waited_for(examine(verify=progress), spins=not verify):
            if not json:
                _show(finding, is_first=not found or found[-1].subject != finding.subject)
            found.append(finding)
    if json:
        click.echo(dumps(as_json(found), ensure_ascii=False, indent=2))
    else:
        click.echo(f"\n{summary(found)}")
    if any(finding.level == "wrong" for finding in found):
        click.get_current_context().exit(1)


def _waited_for(findings: "Iterator[Finding]", *, spins: bool) -> "Iterator[Finding]":
    """The same, with a spinner while the next one is looked for."""
    while True:
        with spinning("looking") if spins else contextlib.nullcontext():
            finding = next(findings, None)
        if finding is None:
            return
        yield finding


@contextlib.contextmanager
def _progress(verify: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """What the bytes that are hashed are shown by: a bar on standard error, from the first of them on."""
    if not verify:
        yield None
        return
    with contextlib.ExitStack() as stack:
        display: Display | None = None

        def advance(label: str, total: int, completed: int) -> None:
            nonlocal display
            display = display or stack.enter_context(shown())
            display.advance(label, label, total, completed)

        yield advance


def _show(finding: "Finding", *, is_first: bool) -> None:
    if is_first:
        click.echo(f"{finding.subject}")
    width = min(terminal.size(sys.stdout)[0], WIDTH) if sys.stdout.isatty() else WIDTH
    lines = finding_lines(finding, width)
    if terminal.has_colours(sys.stdout):
        mark = MARKS[finding.level]
        lines[0] = lines[0].replace(mark, click.style(mark, fg=COLOURS[finding.level]), 1)
    click.echo("\n".join(lines))


def finding_lines(finding: "Finding", width: int) -> list[str]:
    """A finding behind its mark, and what to do about it below."""
    head = f"  {MARKS[finding.level]:<5}  "
    lines = filled(head, printable(finding.text).split(), width, between=" ")
    if finding.remedy:
        lines += filled(" " * len(head) + "-> ", printable(finding.remedy).split(), width, between=" ")
    return lines


def summary(found: "list[Finding]") -> str:
    """One sentence about all."""
    levels: list[Level] = [finding.level for finding in found]
    wrong, notes = levels.count("wrong"), levels.count("note")
    said = {0: "nothing is wrong", 1: "1 thing is wrong"}.get(wrong, f"{wrong} things are wrong")
    more = {0: "", 1: "; 1 thing to know"}.get(notes, f"; {notes} things to know")
    return f"{said}{more}"
