"""`create`: a model from a Modelfile. Source: spec cli §2.3 and §7."""

import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.cli import connection
from corral.cli.display.progress import Display, show_steps, shown
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.cli.paths import typed_path
from corral.client import Client
from corral.errors import BadRequest, CorralError, Forbidden, InvalidName, NotFound, reason_of

if TYPE_CHECKING:
    from corral.cli.create.files import Files

DEFAULT = "Modelfile"
MAX_BYTES = 64 << 20
KINDS = ("q4_K_M", "q4_K_S", "q5_K_M", "q6_K", "q8_0", "f16", "bf16")
"""What most people quantise to; a server knows more."""


@command(
    "create MODEL",
    "Create a model",
    count=Count(exact=1),
    completes=("models",),
    flags=[
        Flag(
            "--file",
            "-f",
            kind="string",
            sentence='The Modelfile (default "Modelfile"; - is standard input)',
            files=True,
        ),
        Flag("--quantize", "-q", kind="string", sentence="Quantize model to this level (e.g. q4_K_M)", values=KINDS),
        Flag(
            "--imatrix",
            kind="string",
            sentence="File that says how much each weight counts, for --quantize",
            files=True,
        ),
        Flag("--adapter-scale", kind="string", sentence="Number that the adapter's strength is multiplied by"),
        Flag(
            "--draft-quantize",
            kind="string",
            sentence="Quantize the draft model to this level (e.g. q4_K_M)",
            values=KINDS,
        ),
    ],
)
def create(
    arguments: Arguments, file: str, quantize: str, imatrix: str, adapter_scale: str, draft_quantize: str
) -> None:
    from corral import modelfile, names
    from corral.cli.create.files import Files
    from corral.cli.create.request import Options, request

    try:
        names.parse(arguments[0])
    except InvalidName:
        raise BadRequest(f"invalid model name: {arguments[0]}") from None
    if imatrix and not quantize:
        raise BadRequest("--imatrix is for --quantize")
    text, folder = _modelfile(file)
    parsed = modelfile.parse(text)
    client = connection.connect()
    is_ours = bool(client.version().corral)
    if (imatrix or adapter_scale) and not is_ours:
        raise BadRequest(f'the server at "{client.address}" knows no --{"imatrix" if imatrix else "adapter-scale"}')
    with shown() as display:
        display.spin("gathering model components")
        wanted = modelfile.contents(parsed)
        for name in wanted.deprecated:
            display.spin(f"warning: parameter {name} is deprecated")
        files = Files(client, display)
        members = request(wanted, folder, Options(quantize, imatrix, adapter_scale, draft_quantize), files)
        by_path = is_ours and connection.is_ours(client.address)
        _send(arguments[0], members, files, client, display, by_path=by_path)


def _modelfile(file: str) -> tuple[str, Path]:
    """The text, and the folder that its relative paths begin in."""
    from corral.modelfile import decode

    if file == "-":
        return decode(sys.stdin.buffer.read(MAX_BYTES + 1)[:MAX_BYTES]), Path.cwd()
    path = typed_path(file or DEFAULT)
    try:
        with path.open("rb") as stream:
            return decode(stream.read(MAX_BYTES)), path.parent
    except FileNotFoundError:
        if file:
            raise NotFound(f'specified Modelfile wasn\'t found\nno such file: "{path}"') from None
    except OSError as error:
        raise CorralError(f'cannot read "{path}": {reason_of(error)}') from error
    return "FROM .", Path.cwd()


def _send(
    model: str, members: Mapping[str, Any], files: "Files", client: Client, display: Display, *, by_path: bool
) -> None:
    """Has the model made; files that the server lacks are named to it where it can read them, and else uploaded."""
    missing = files.missing()
    if missing and by_path:
        paths = {str(files.digests[part]): str(part.path.absolute()) for part in missing}
        try:
            _run(client, model, {**members, "paths": paths}, display)
            return
        except (BadRequest, Forbidden) as error:
            if "was not uploaded" not in str(error) and not isinstance(error, Forbidden):
                raise
    files.upload(missing)
    try:
        _run(client, model, members, display)
    except BadRequest as error:
        source = str(members.get("from", ""))
        if str(error).endswith("invalid model name") and _looks_like_path(source):
            raise NotFound(f'no such file: "{source}"') from error
        raise


def _run(client: Client, model: str, members: Mapping[str, Any], display: Display) -> None:
    try:
        with closing(client.create(model, members)) as steps:
            show_steps(steps, display)
    except CorralError as error:
        raise _explained(error) from error


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.endswith((".gguf", ".safetensors"))


def _explained(error: CorralError) -> CorralError:
    """A wrong `--quantize`, for which the API has the status of a failure, as the mistake that it is."""
    _, found, kind = str(error).partition("unsupported quantization type ")
    if found:
        wrong, _, known = kind.partition(" - supported types are ")
        return BadRequest(f'unknown quantization type "{wrong}"\nknown types: {known}')
    _, found, rest = str(error).partition("quantization is only supported for ")
    return BadRequest(f"{found}{rest}") if found else error
