"""Has every new shell complete: a line in the file that it reads when it starts."""

import click

from corral import config
from corral.cli.display.text import printable


def install(shell: str, program: str) -> None:
    """Adds the line to the shell's file, once."""
    match shell:
        case "fish":
            file, line = config.config_folder() / "fish" / "config.fish", f"{program} completion fish | source"
        case _:
            file, line = config.user_folder() / f".{shell}rc", f"source <({program} completion {shell})"
    before = file.read_text("utf-8") if file.exists() else ""
    if line in before.splitlines():
        click.echo(f'"{printable(str(file))}" has it already')
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * (bool(before) and not before.endswith("\n")) + line + "\n")
    click.echo(f'added to "{printable(str(file))}"; new shells complete')
