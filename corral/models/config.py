"""The config blob of a model: its members, and how it is read and written. Source: spec cli §8."""

from typing import Any

import msgspec

from corral.errors import CorralError, StoreError
from corral.golang import gojson


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The config of a model, as spec cli §8 names its members. Empty strings and zeros stand for unset ones."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = None
    model_type: str = ""
    """How many parameters, for people: `134.52M`."""
    file_type: str = ""
    """The quantisation."""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: dict[str, Any] | None = None
    architecture: str = "amd64"
    os: str = "linux"


_ALWAYS = {"model_format", "model_family", "model_families", "model_type", "file_type", "architecture", "os"}


def parse_config(raw: bytes) -> ModelConfig:
    """A config blob, read as leniently as Go does; unknown members are ignored. `StoreError`."""
    try:
        return gojson.decode(raw, ModelConfig)
    except CorralError as error:
        raise StoreError(f"invalid model config: {error}") from error


def encode_config(config: ModelConfig) -> bytes:
    """The config blob: compact JSON in the order of `ModelConfig`, what is unset left out, a newline at the end."""
    members = {name: getattr(config, name) for name in ModelConfig.__struct_fields__}
    return gojson.encode({name: value for name, value in members.items() if value or name in _ALWAYS}) + b"\n"
