"""What is fed with random bytes: each target returns, or raises one of the errors that its reader declares.

Any other exception is a finding, and so is an input that takes more than `SECONDS` of processor time.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from corral import gguf, modelfile
from corral.convert import safetensors
from corral.errors import CorralError, ModelFileError
from corral.gguf import writer

SECONDS = 2.0
MEGABYTES = 256
"""Of memory for the whole process, which takes a fifth of it before the first input."""

Target = Callable[[bytes], None]

_FILE = Path(tempfile.gettempdir()) / f"corral-fuzz-{os.getpid()}"


class SlowError(Exception):
    """An input took too long."""


def run(name: str, data: bytes) -> None:
    """Feeds a target; raises what should not have come of it."""
    began = time.process_time()
    TARGETS[name](data)
    if (seconds := time.process_time() - began) > SECONDS:
        raise SlowError(f"{seconds:.1f} s for {len(data)} bytes")


def read_gguf(data: bytes) -> None:
    """Reads a model file and asks it everything that is asked when a model is made of it and shown."""
    try:
        file = gguf.read(_written(data))
        gguf.check_new(file)
    except ModelFileError as error:
        _check_sentence(error)
        return
    json.dumps(file.model_info(verbose=True), allow_nan=False)
    assert file.weights_bytes <= file.size
    assert file.kv_bytes_per_token() >= 0
    assert file.capabilities
    assert all(file.data_offset <= tensor.offset <= file.size - tensor.size for tensor in file.tensors)
    assert file.chat_template is None or isinstance(file.chat_template, str)
    if not file.big_endian and file.version > 1:
        writer.layout(writer.copied_fields(file), file.tensors, alignment=file.alignment, version=3)


def read_modelfile(data: bytes) -> None:
    """Reads a Modelfile to the end: its commands, and what they come to."""
    try:
        modelfile.contents(modelfile.parse(modelfile.decode(data)))
    except CorralError as error:  # which quotes the file's own line, as it is
        if len(str(error)) not in range(1, 1000 + len(data)):
            raise AssertionError(repr(error)) from error


def read_safetensors(data: bytes) -> None:
    """Reads the header of a file of tensors; every tensor lies within the file."""
    try:
        tensors = safetensors.read(_written(data), "model.safetensors")
    except ModelFileError as error:
        _check_sentence(error)
        return
    for tensor in tensors:
        tensor.read(0, 0)


TARGETS: dict[str, Target] = {"gguf": read_gguf, "modelfile": read_modelfile, "safetensors": read_safetensors}


def _check_sentence(error: CorralError) -> None:
    """An error speaks to a person, on a line of its own."""
    sentence = str(error)
    if not sentence or not sentence.replace("\n", " ").isprintable():
        raise AssertionError(repr(sentence)) from error


def _written(data: bytes) -> Path:
    _FILE.write_bytes(data)
    return _FILE
