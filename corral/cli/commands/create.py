"""`create`: a model from a Modelfile. Source: spec cli §2.3 and §7."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.cli import connection
from corral.cli.display.progress import Display, show_steps, shown
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.cli.paths import typed_path
from corral.client import Client
from corral.errors import BadRequest, CorralError, Forbidden, InvalidName, NotFound

if TYPE_CHECKING:
    from corral.cli.create.files import Files
    from corral.modelfile import Contents, Modelfile

DEFAULT = "Modelfile"
MAX_BYTES = 64 << 20


@command(
    "create MODEL",
    "Create a model",
    count=Count(exact=1),
    flags=[
        Flag("--file", "-f", kind="string", sentence='The Modelfile (default "Modelfile"; - is standard input)'),
        Flag("--quantize", "-q", kind="string", sentence="Quantize model to this level (e.g. q4_K_M)"),
        Flag("--imatrix", kind="string", sentence="File that says how much each weight counts, for --quantize"),
        Flag("--draft-quantize", kind="string", sentence="Quantize the draft model to this level (e.g. q4_K_M)"),
    ],
)
def create(arguments: Arguments, file: str, quantize: str, imatrix: str, draft_quantize: str) -> None:
    from corral import modelfile, names

    try:
        names.parse(arguments[0])
    except InvalidName:
        raise BadRequest(f"invalid model name: {arguments[0]}") from None
    if imatrix and not quantize:
        raise BadRequest("--imatrix is for --quantize")
    text, folder = _modelfile(file)
    parsed = modelfile.parse(text)
    client = connection.connect()
    with shown() as display:
        display.spin("gathering model components")
        _create(arguments[0], parsed, folder, client, display, quantize, imatrix, draft_quantize)


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
        raise CorralError(f'cannot read "{path}": {(error.strerror or str(error)).lower()}') from error
    return "FROM .", Path.cwd()


def _create(
    model: str,
    parsed: "Modelfile",
    folder: Path,
    client: Client,
    display: Display,
    quantize: str,
    imatrix: str,
    draft_quantize: str,
) -> None:
    from corral.cli.create.files import Files
    from corral.modelfile import contents

    wanted = contents(parsed)
    for name in wanted.deprecated:
        print(f"warning: parameter {name} is deprecated", file=sys.stderr)
    if draft_quantize and not wanted.draft:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    files = Files(client, display)
    fields = {**_sources(wanted, folder, files), **request_texts(wanted)}
    fields |= {name: value for name, value in (("quantize", quantize), ("draft_quantize", draft_quantize)) if value}
    is_ours = bool(client.version().corral)
    if imatrix:
        if not is_ours:
            raise BadRequest(f'the server at "{client.address}" takes no --imatrix')
        path = typed_path(imatrix)
        if not path.is_file():
            raise NotFound(f'no such file: "{path}"')
        fields["imatrix"] = files.add({"imatrix": path})["imatrix"]
    _send(model, fields, files, client, display, by_path=is_ours and connection.is_ours(client.address))


def _sources(wanted: "Contents", folder: Path, files: "Files") -> dict[str, Any]:
    """The members that say what the model is made of."""
    from corral.cli.create.folder import files_of

    paths = {source: _path(source, folder) for source in wanted.sources}
    fields: dict[str, Any] = {}
    groups: list[Mapping[str, Path]] = []
    for source, path in paths.items():
        if path.exists():
            groups.append(files_of(path))
        else:
            fields["from"] = source
    if groups:
        fields["files"] = files.add(_together(groups))
    if wanted.adapter:
        fields["adapters"] = files.add(files_of(_path(wanted.adapter, folder)))
    if wanted.draft:
        draft = _path(wanted.draft, folder)
        if draft in paths.values():
            raise BadRequest(f"DRAFT must not reference the same local path as FROM: {wanted.draft}")
        fields["draft_files"] = files.add(files_of(draft))
    return fields


def _path(text: str, folder: Path) -> Path:
    return typed_path(text) if text.startswith("~") else folder / text


def _together(groups: Sequence[Mapping[str, Path]]) -> dict[str, Path]:
    """The files of several FROMs; where two have one name, they get a folder each."""
    names = [name for group in groups for name in group]
    if len(set(names)) == len(names):
        return {name: path for group in groups for name, path in group.items()}
    return {f"{number}/{name}": path for number, group in enumerate(groups, 1) for name, path in group.items()}


def request_texts(wanted: "Contents") -> dict[str, Any]:
    """The members that are laid over it; what the Modelfile does not say is left out."""
    fields: dict[str, Any] = {
        "template": wanted.template,
        "system": wanted.system,
        "renderer": wanted.renderer,
        "parser": wanted.parser,
        "requires": wanted.requires,
        "license": list(wanted.licenses),
        "parameters": dict(wanted.parameters or {}),
        "messages": [{"role": role, "content": text} for role, text in wanted.messages],
    }
    return {name: value for name, value in fields.items() if value}


def _send(
    model: str, fields: Mapping[str, Any], files: "Files", client: Client, display: Display, *, by_path: bool
) -> None:
    """Has the model made; files that the server lacks are named to it where it can read them, and else uploaded."""
    missing = files.missing()
    if missing and by_path:
        paths = {str(files.digests[path]): str(path.absolute()) for path in missing}
        try:
            _run(client, model, {**fields, "paths": paths}, display)
            return
        except (BadRequest, Forbidden) as error:
            if "was not uploaded" not in str(error) and not isinstance(error, Forbidden):
                raise
    files.upload(missing)
    try:
        _run(client, model, fields, display)
    except BadRequest as error:
        if str(error).endswith("invalid model name"):
            raise BadRequest(f"{error}{_missing_path(str(fields.get('from', '')))}") from error
        raise


def _run(client: Client, model: str, fields: Mapping[str, Any], display: Display) -> None:
    with closing(client.create(model, fields)) as steps:
        show_steps(steps, display)


def _missing_path(source: str) -> str:
    """What to say when FROM looks like a path, and nothing lies there."""
    looks_like_path = source.startswith((".", "/", "~")) or source.endswith((".gguf", ".safetensors"))
    return f'\nno such file: "{source}"' if looks_like_path else ""
