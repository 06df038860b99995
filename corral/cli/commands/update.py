"""`update`: says how this very installation is brought up to date. It changes nothing itself."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from corral import __version__
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name

PACKAGE = "corral"
IMAGE_PREFIX = "/opt/corral"
"""Where the Containerfile installs it."""
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into their containers."""


@command("update", "Show how to update Corral, the way it was installed", count=Count(exact=0), settings=())
def update(arguments: Arguments) -> None:
    from importlib.metadata import distribution

    found = distribution(PACKAGE)
    click.echo(f"{program_name()} {__version__} in {printable(sys.prefix)}. To update it:\n")
    lines = ways(
        PurePath(sys.prefix),
        sys.executable,
        installer=(found.read_text("INSTALLER") or "").strip(),
        source=found.read_text("direct_url.json") or "",
        is_image=sys.prefix == IMAGE_PREFIX and any(map(Path.exists, map(Path, CONTAINER_MARKS))),
    )
    click.echo("\n".join(f"    {printable(line)}" for line in lines))
    click.echo(
        f"\nModels and settings stay. Engines that were compiled here are then built again: `{program_name()} engine`."
    )


def ways(prefix: PurePath, python: str, *, installer: str, source: str, is_image: bool) -> list[str]:
    """The commands, one after the other.

    `prefix`: the environment's folder. `installer` and `source`: what `INSTALLER` and `direct_url.json` say; see the
    packaging specification "Recording installed projects".
    """
    if is_image:
        return ["podman pull IMAGE, or build it again: podman build --tag corral .", "and start the container anew"]
    match prefix.parts:
        case (*_, "pipx", "venvs", _):
            return [f"pipx upgrade {PACKAGE}"]
        case (*_, "uv", "tools", _):
            return [f"uv tool upgrade {PACKAGE}"]
    pip = f"uv pip install --python {python}" if installer == "uv" else f"{python} -m pip install"
    return [*_from_source(pip, json.loads(source))] if source else [f"{pip} --upgrade {PACKAGE}"]


def _from_source(pip: str, source: dict[str, Any]) -> Iterator[str]:
    """For an installation from a folder or a repository."""
    url = str(source.get("url", ""))
    if (repository := source.get("vcs_info")) is not None:
        yield f"{pip} --upgrade {repository.get('vcs')}+{url}"
        return
    path = unquote(urlsplit(url).path)
    folder = shlex.quote(path[1:] if re.match(r"/[A-Za-z]:", path) else path)
    yield f"git -C {folder} pull"
    yield f"{pip} {'--editable ' if source.get('dir_info', {}).get('editable') else '--upgrade '}{folder}"
