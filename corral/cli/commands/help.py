"""`help [command]`: the help page of the program or of a command; and `version`, as the flag of that name."""

import click

from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.help_pages import unknown_command


@command("help [command]", "Show the help page of a command", count=Count(), completes=("commands",), settings=())
@click.pass_context
def help_(ctx: click.Context, arguments: Arguments) -> None:
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    if not arguments:
        click.echo(root.get_help())
        return
    found = root.command.get_command(root, arguments[0])
    if found is None:
        raise unknown_command(arguments[0], root.info_name or "", root.command.list_commands(root))
    with click.Context(found, info_name=found.name, parent=root) as page:
        click.echo(page.get_help())


@command("version", "Show version information", count=Count(exact=0))
@click.pass_context
def version_(ctx: click.Context, arguments: Arguments) -> None:
    from corral.cli.commands import version

    version.show(ctx.find_root().info_name or "")
