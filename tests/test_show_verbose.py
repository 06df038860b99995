"""What `show` says of a model file: every key and every tensor, by the API and by the command (spec api §13)."""

import subprocess
import sys
from pathlib import Path

from corral import gguf
from tests.asking import post
from tests.conftest import RunningServer, environment


def test_the_api_lists_every_key_and_every_tensor(fake_server: RunningServer, tiny_gguf: Path) -> None:
    file = gguf.read(tiny_gguf)
    plain, verbose = (post(fake_server, "/api/show", {"model": "fake", "verbose": full}).json for full in (False, True))
    listed = {tensor["name"]: (tensor["type"], tensor["shape"]) for tensor in plain["tensors"]}
    assert listed == {tensor.name: (tensor.type, list(tensor.shape)) for tensor in file.tensors}
    assert plain["tensors"] == verbose["tensors"]
    blocks = [name for name in listed if name.startswith("blk.")]
    assert blocks == sorted(blocks)
    hidden = {"general.name", "tokenizer.chat_template"}
    assert verbose["model_info"].keys() == (file.metadata.keys() - hidden) | {"general.parameter_count"}
    assert verbose["model_info"]["tokenizer.ggml.tokens"] == file.values("tokenizer.ggml.tokens")
    assert plain["model_info"]["tokenizer.ggml.tokens"] is None
    assert plain["model_info"]["general.parameter_count"] == file.parameter_count


def test_the_command_lists_them_too(fake_server: RunningServer, tiny_gguf: Path) -> None:
    command = [sys.executable, "-m", "corral", "show", "fake", "--verbose"]
    shown = subprocess.run(
        command, env=environment(fake_server.home, fake_server.host), capture_output=True, text=True, check=True
    ).stdout
    _, metadata = shown.split("\n  Metadata\n")
    metadata, tensors = metadata.split("\n  Memory\n")[0].split("\n  Tensors\n")
    file = gguf.read(tiny_gguf)
    rows = [line.split(None, 2) for line in tensors.splitlines() if line.strip()]
    assert {(name, kind, shape.strip()) for name, kind, shape in rows} == {
        (tensor.name, tensor.type, f"[{' '.join(map(str, tensor.shape))}]") for tensor in file.tensors
    }
    assert {line.split()[0] for line in metadata.splitlines() if line.strip()} == {
        key for key in file.metadata if key != "general.name"
    } | {"general.parameter_count"}
