"""`pull` and `push`: models between the store and elsewhere. Source: spec cli §2.6, §2.7 and §3.4."""

import re
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from corral.cli import connection
from corral.cli.display.progress import show_steps, shown
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.cli.paths import check_file, typed_path
from corral.client import Client
from corral.errors import BadRequest, CorralError

ENDINGS = (".gguf", ".llamafile")
"""Of files that need no `./` in front of them."""
INSECURE = "Speak plain HTTP to a registry that does not speak HTTPS"


@command(
    "pull MODEL",
    "Pull a model from a registry, or add a GGUF file or a llamafile (`file:///…`, or its path)",
    count=Count(exact=1),
    completes=("models or files",),
    flags=[
        Flag("--insecure", kind="bool", sentence=INSECURE),
        Flag("--name", kind="string", sentence="Name for the model of a file; otherwise it is named after the file"),
    ],
)
def pull(arguments: Arguments, insecure: bool, name: str) -> None:
    file = model_file(arguments[0])
    if file is None:
        if name:
            raise BadRequest("--name is for a file; a registry's model has its name already")
        fetch(connection.connect(), arguments[0], insecure=insecure)
        return
    _check_file(file)  # before a server is started
    pull_file(connection.connect(), file, name or name_of(file))


def pull_file(client: Client, file: Path, name: str) -> None:
    """Makes a model of a file; `BadRequest` and `NotFound` where it is none."""
    _check_file(file)
    fetch(client, name, source=file.as_uri())


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise BadRequest(f'"{file}" is a folder; name the GGUF file in it')
    check_file(file)


def fetch(client: Client, model: str, *, source: str = "", insecure: bool = False) -> None:
    """Pulls a model and shows how it goes."""
    with shown() as display, closing(client.pull(model, source=source, insecure=insecure)) as steps:
        show_steps(steps, display)


def model_file(text: str) -> Path | None:
    """The absolute path of a file, when the argument is one and no model's name."""
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise BadRequest(f'invalid file address "{text}": it must look like file:///path/model.gguf')
        return Path(unquote(parts.path))
    if text.startswith((".", "/", "~")):  # no name of a model begins so
        return typed_path(text)
    path = Path(text)
    # A name of one part is a model's even where a file is called so.
    is_ours = path.is_file() and (path.suffix.lower() in ENDINGS or (len(path.parts) > 1 and _is_gguf(path)))
    return path.absolute() if is_ours else None


def _is_gguf(file: Path) -> bool:
    """Whether a file begins as a GGUF does, whatever its name."""
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


def name_of(file: Path) -> str:
    """A model name made from a file's: in lower case, what no name may have replaced by `-`, no number of a part."""
    from corral.names import parse_split_part

    part = parse_split_part(file.stem)
    whole = file.stem if part is None else part.stem
    name = re.sub(r"[^a-z0-9_.-]+", "-", whole.lower())[:80].strip("-.")
    if not name:
        raise BadRequest(f'cannot make a model name from "{file.name}"; give one with --name')
    return name


@command(
    "push MODEL",
    "Push a model to a registry",
    count=Count(exact=1),
    completes=("models",),
    flags=[Flag("--insecure", kind="bool", sentence=INSECURE)],
)
def push(arguments: Arguments, insecure: bool) -> None:
    from corral import names

    model = arguments[0]
    client = connection.connect()
    try:
        with shown() as display, closing(client.push(model, insecure=insecure)) as steps:
            show_steps(steps, display)
    except CorralError as error:
        if "access denied" in str(error) or "unauthorized" in str(error):
            raise CorralError(
                "you are not authorized to push to this namespace, create the model under a namespace you own"
            ) from error
        raise
    name = names.parse(model)
    where = str(name)
    if name.host.lower().endswith((".ollama.ai", ".ollama.com")):
        where = f"https://ollama.com/{where.removesuffix(':latest')}"
    click.echo(f"\nYou can find your model at:\n\n\t{where}")
