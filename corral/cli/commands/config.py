"""`config`: every setting with its value and where it comes from. Asks no server: these are this command's own."""

import sys
from dataclasses import fields

import click

from corral.cli.display import terminal
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import text_width
from corral.cli.framework.commands import Arguments, Count, command
from corral.config import Config, load
from corral.config.values import text_of


@command("config", "Show every setting, its value and where it comes from", count=Count(exact=0), settings=())
def config(arguments: Arguments) -> None:
    loaded = load()
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    rows = [
        (
            setting.name,
            text_of(getattr(loaded.config, setting.name)) or "-",
            setting.metadata["variable"],
            loaded.origins[setting.name],
        )
        for setting in fields(Config)
    ]
    whole = table(("SETTING", "VALUE", "VARIABLE", "FROM"), rows)
    if _fits(whole):
        print_table(whole)
    else:
        print_table(table(("SETTING", "VALUE", "FROM"), [(name, value, origin) for name, value, _, origin in rows]))


def _fits(text: str) -> bool:
    """Whether no line would be wrapped by the terminal, if there is one."""
    if not sys.stdout.isatty():
        return True
    columns, _ = terminal.size(sys.stdout)
    return all(text_width(line.rstrip(" ")) <= columns for line in text.splitlines())
