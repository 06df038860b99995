"""`config`: every setting with its value and where it comes from. Asks no server: these are this command's own."""

import sys
from dataclasses import fields

import click

from corral.cli.display import terminal
from corral.cli.display.tables import print_table, table
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
            setting.metadata["variable"] or "-",
            loaded.origins[setting.name],
            text_of(getattr(loaded.config, setting.name)) or "-",
        )
        for setting in fields(Config)
    ]
    headers = ("SETTING", "VARIABLE", "FROM", "VALUE")
    print_table(table(headers, rows, width=terminal.width(sys.stdout), spare=("VARIABLE", "FROM")))
