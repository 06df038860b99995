"""A checkpoint's folder: its configuration and the tensors of all its files. Knows no architecture.

`files` are the folder's files by their names within it, and the only ones that are ever opened: a name in an index
file is looked up there, so none can lead out of the folder.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from corral.convert import safetensors
from corral.convert.hyperparameters import Hyperparameters
from corral.convert.safetensors import StoredTensor, shortened
from corral.errors import ModelFileError
from corral.messages import Json

Files = Mapping[str, Path]

MAX_JSON = 64 << 20
"""Bytes of a JSON file; an index of a large model has some megabytes."""
MAX_SHARDS = 4096

_SHARD = re.compile(r"-(\d{1,6})-of-(\d{1,6})\.safetensors")
_INDEX = ".safetensors.index.json"


class Checkpoint(Struct, frozen=True):
    """What a folder says of its model: its files, and `config.json` as it stands."""

    files: Files
    config: dict[str, Json]

    @property
    def hyperparameters(self) -> Hyperparameters:
        return Hyperparameters(self.config)


def read(files: Files) -> Checkpoint:
    """The folder with its configuration; `ModelFileError`."""
    return Checkpoint(files, read_json(files, "config.json"))


def read_tensors(files: Files) -> dict[str, StoredTensor]:
    """The tensors of all the model's files, by name."""
    tensors: dict[str, StoredTensor] = {}
    for name in _weights(files):
        for tensor in safetensors.read(files[name], name):
            if tensor.name in tensors:
                raise ModelFileError(f"duplicate tensor name '{shortened(tensor.name)}' was found for this model")
            tensors[tensor.name] = tensor
    return tensors


def read_json(files: Files, name: str) -> dict[str, Json]:
    """The object in a JSON file of the folder; numbers may be NaN or infinite."""
    if name not in files:
        raise ModelFileError(f'"{name}" is missing')
    found = read_json_value(files, name)
    if not isinstance(found, dict):
        raise ModelFileError(f'"{name}" is not a JSON object')
    return found


def read_json_value(files: Files, name: str) -> Json:
    """What is in a JSON file of the folder."""
    try:
        if files[name].stat().st_size > MAX_JSON:
            raise ModelFileError(f'"{name}" has more than {MAX_JSON} bytes')
        return json.loads(files[name].read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ModelFileError(f'cannot read "{name}": {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f'"{name}" is not JSON') from error


def _weights(files: Files) -> list[str]:
    """The files with the model's tensors: those of the index, or of the folder's top; `model*` before others."""
    top = sorted(name for name in files if "/" not in name)
    index = next((name for name in ("model" + _INDEX, *top) if name in files and name.endswith(_INDEX)), None)
    found = [name for name in top if name.endswith(".safetensors")]
    models = [name for name in found if name.startswith("model")]
    chosen = _indexed(files, index) if index is not None else models or found
    if not chosen:
        raise ModelFileError("unknown tensor format")
    if len(chosen) > MAX_SHARDS:
        raise ModelFileError(f"the model is spread over {len(chosen)} files, more than {MAX_SHARDS}")
    _check_shards(chosen)
    return chosen


def _indexed(files: Files, index: str) -> list[str]:
    places = read_json(files, index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise ModelFileError(f'"{index}" has no "weight_map" of file names')
    named = sorted(set(places.values()))
    for name in named:
        if not name.endswith(".safetensors") or "/" in name or "\\" in name or not name.isprintable():
            raise ModelFileError(f'"{index}" names "{shortened(name)}", which is not a safetensors file of its folder')
        if name not in files:
            raise ModelFileError(f'"{shortened(name)}" is missing, which "{index}" names')
    return named


def _check_shards(names: list[str]) -> None:
    """Of `model-00001-of-00003.safetensors` all three are there."""
    for name in names:
        match = _SHARD.search(name)
        if match is None:
            continue
        digits, count = len(match[1]), int(match[2])
        if count > MAX_SHARDS:
            raise ModelFileError(f'"{name}" is of {count} files, more than {MAX_SHARDS}')
        for number in range(1, count + 1):
            other = f"{name[: match.start(1)]}{number:0{digits}d}{name[match.end(1) :]}"
            if other not in names:
                raise ModelFileError(f'"{other}" is missing')
        return
