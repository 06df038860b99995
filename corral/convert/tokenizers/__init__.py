from collections.abc import Mapping
from pathlib import Path

from corral.errors import ModelFileError
from corral.messages import Json


def read(files: Mapping[str, Path], config: Mapping[str, Json], vocab_size: int) -> dict[str, bytes]:
    raise ModelFileError("unknown tokenizer format")
