"""What is mapped of a file is found and given back; a worker does that with weights that its engine has copied."""

import mmap
import os
from pathlib import Path

import psutil

from corral.system import mapped
from tests.asking import post, until
from tests.conftest import StartServer, add_model
from tests.tiny_models import tiny_llama


def resident(process: int, file: Path) -> int:
    """Bytes of a file that a process has in its memory."""
    size, is_of_it = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            is_of_it = line.endswith(f" {file}")
        elif is_of_it and name == "Rss:":
            size += int(rest[0]) << 10
    return size


def test_what_is_given_back_is_read_again(tmp_path: Path) -> None:
    file, link = tmp_path / "a file", tmp_path / "link"
    file.write_bytes(bytes(range(256)) * 4096)
    link.symlink_to(file)
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as content:
        assert content[-1] == 255
        (stretch,) = mapped.mapped([link, tmp_path / "none"])
        assert stretch.size == 1 << 20
        sum(content[::4096])
        assert resident(os.getpid(), file) == 1 << 20
        mapped.let_go([stretch])
        assert resident(os.getpid(), file) == 0
        assert sum(content[1::4096]) == 256
    assert mapped.mapped([file]) == []


def test_a_worker_does_not_keep_a_second_copy_of_its_weights(tmp_path: Path, start_server: StartServer) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "tiny", tiny_llama(tmp_path / "tiny.gguf"))
    (blob,) = (path for path in (home / ".ollama" / "models" / "blobs").iterdir() if path.read_bytes()[:4] == b"GGUF")
    server = start_server(home)
    assert post(server, "/api/generate", {"model": "tiny", "stream": False}).status == 200
    workers = psutil.Process(server.process.pid).children(recursive=True)
    (worker,) = (one.pid for one in workers if str(blob) in Path(f"/proc/{one.pid}/maps").read_text())
    until(lambda: resident(worker, blob) == 0)
    assert post(server, "/api/generate", {"model": "tiny", "prompt": "a", "options": {"num_predict": 1}}).status == 200
    assert resident(worker, blob) > 0
