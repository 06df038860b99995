"""`corral tune` with the real engine: every setting is measured, and a server answers with what was kept."""

import re
import subprocess
from pathlib import Path

import msgspec

from corral.engine import tuned
from corral.engine.base import TunedSettings
from tests.asking import ask, post
from tests.commands import CORRAL
from tests.conftest import add_model, environment, running_server

SETTINGS = {"threads", "micro-batch", "flash attention", "KV type", "weights", "speculation"}


def test_every_setting_is_measured_and_what_is_kept_is_loaded_with(tmp_path: Path, tiny_gguf: Path) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "tiny", tiny_gguf)
    given = environment(home, "127.0.0.1:1")
    done = subprocess.run(
        [CORRAL, "tune", "tiny", "--pairs", "3"], env=given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [tuple(re.split(" {2,}", line.strip())) for line in done.stdout.splitlines()]
    assert {row[0] for row in rows if row[-1] in ("yes", "no")} >= SETTINGS, done.stdout
    assert "does not work" not in done.stdout

    # Which settings win with so small a model is luck; so all of them are set, to see that the engine takes them.
    (kept,) = tuned.everything(home / "state")
    settings = TunedSettings(num_thread=1, num_batch=256, flash_attention="on", repack=False, ngram_draft=12)
    tuned.write(home / "state", msgspec.structs.replace(kept, settings=settings))
    with running_server(home) as server:
        asked = {"model": "tiny", "prompt": "Hi", "stream": False, "options": {"num_predict": 16}}
        answer = post(server, "/api/generate", asked)
        assert answer.status == 200, answer.body
        assert ask(server, "GET", "/api/ps").json["models"][0]["tuned"] is True
