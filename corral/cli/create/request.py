"""What is asked of the server for a Modelfile: the members of a request. Source: spec cli §2.3, §7; api §11.1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral import llamafile
from corral.cli.create.files import Files, Part
from corral.cli.create.folder import files_of
from corral.cli.paths import check_file, typed_path
from corral.errors import BadRequest
from corral.llamafile import bundles
from corral.modelfile import Contents
from corral.system.files import exists


@dataclass(frozen=True, slots=True)
class Options:
    """What the flags of the command ask for; empty where they were not given."""

    quantize: str = ""
    imatrix: str = ""
    """The path of a file."""
    adapter_scale: str = ""
    draft_quantize: str = ""


def request(wanted: Contents, folder: Path, options: Options, files: Files) -> dict[str, Any]:
    """The members but the model's name; what neither Modelfile nor flags say is left out.

    `folder`: where relative paths begin. `files` gets, and hashes, every file that is named.
    """
    if options.draft_quantize and not wanted.draft:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    if options.adapter_scale and not wanted.adapter:
        raise BadRequest("--adapter-scale requires an ADAPTER")
    members = _laid_over(_sources(wanted, folder, files), texts(wanted))
    if options.imatrix:
        path = typed_path(options.imatrix)
        check_file(path)
        members["imatrix"] = files.add({"imatrix": Part(path)})["imatrix"]
    if options.adapter_scale:
        members["adapter_scale"] = _number(options.adapter_scale)
    members |= {"quantize": options.quantize, "draft_quantize": options.draft_quantize}
    return {name: value for name, value in members.items() if value != ""}


def _laid_over(base: dict[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """What a Modelfile says, over what came with the files that it names."""
    parameters = {**base.get("parameters", {}), **members.get("parameters", {})}
    return {**base, **members, **({"parameters": parameters} if parameters else {})}


def texts(wanted: Contents) -> dict[str, Any]:
    """The members that are laid over the base."""
    members: dict[str, Any] = {
        "template": wanted.template,
        "system": wanted.system,
        "renderer": wanted.renderer,
        "parser": wanted.parser,
        "requires": wanted.requires,
        "license": list(wanted.licenses),
        "parameters": dict(wanted.parameters or {}),
        "messages": [{"role": role, "content": text} for role, text in wanted.messages],
    }
    return {name: value for name, value in members.items() if value}


def _sources(wanted: Contents, folder: Path, files: Files) -> dict[str, Any]:
    """The members that say what the model is made of."""
    paths = {source: _path(source, folder) for source in wanted.sources}
    members: dict[str, Any] = {}
    groups: list[Mapping[str, Part]] = []
    for source, path in paths.items():
        match llamafile.container(path):
            case "llamafile":
                parts, said = _of_llamafile(path)
            case "bundle":
                parts, said = _of_bundle(path)
            case None if exists(path):
                parts, said = files_of(path), {}
            case None:
                members["from"] = source
                continue
        groups.append(parts)
        members |= said
    if groups:
        members["files"] = files.add(_together(groups))
    if wanted.adapter:
        members["adapters"] = files.add(files_of(_path(wanted.adapter, folder)))
    if wanted.draft:
        draft = _path(wanted.draft, folder)
        if draft in paths.values():
            raise BadRequest(f"DRAFT must not reference the same local path as FROM: {wanted.draft}")
        members["draft_files"] = files.add(files_of(draft))
    return members


def _of_llamafile(path: Path) -> tuple[Mapping[str, Part], dict[str, Any]]:
    """The model's files in a llamafile, and the members for what its arguments say."""
    found = llamafile.read(path)
    parts = {name: Part(path, stretch.offset, stretch.size) for name, stretch in found.files.items()}
    arguments = found.arguments
    return parts, {"parameters": arguments.parameters, **({"system": arguments.system} if arguments.system else {})}


_TEXTS = {"template": "template", "prompt": "template", "system": "system"}
_FROM_CONFIG = ("renderer", "parser", "requires")


def _of_bundle(path: Path) -> tuple[Mapping[str, Part], dict[str, Any]]:
    """The model's files in a bundle, and the members for what else it has of the model."""
    found = bundles.read(path)
    members: dict[str, Any] = {}
    for kind, member in _TEXTS.items():
        for digest in found.of(kind):
            members[member] = bundles.text(path, found.files[digest])
    for kind, member in (("params", "parameters"), ("messages", "messages")):
        for digest in found.of(kind):
            members[member] = bundles.json(path, found.files[digest])
    if licenses := [bundles.text(path, found.files[digest]) for digest in found.of("license")]:
        members["license"] = licenses
    config = bundles.json(path, found.files[found.config])
    for name in _FROM_CONFIG:
        if isinstance(config, dict) and isinstance(value := config.get(name), str) and value:
            members[name] = value
    files = {"model.gguf": found.weights}
    for kind in ("projector", "adapter"):
        for number, digest in enumerate(found.of(kind)):
            files[f"{kind}{number or ''}.gguf"] = digest
    return {
        name: Part(path, found.files[digest].offset, found.files[digest].size) for name, digest in files.items()
    }, members


def _path(text: str, folder: Path) -> Path:
    return typed_path(text) if text.startswith("~") else folder / text


def _together(groups: Sequence[Mapping[str, Part]]) -> dict[str, Part]:
    """The files of several FROMs; where two have one name, they get a folder each."""
    names = [name for group in groups for name in group]
    if len(set(names)) == len(names):
        return {name: part for group in groups for name, part in group.items()}
    return {f"{number}/{name}": part for number, group in enumerate(groups, 1) for name, part in group.items()}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadRequest(f'--adapter-scale must be a number, got "{text}"') from None
