"""What the tests of other dialects than Ollama's share: a server over the fake engine, events, filtered ids."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.engines import engines
from tests.tiny_models import CHATML, tiny_bert, tiny_llama
from tests.tool_templates import JINJA

_VARYING = (
    (re.compile(r'"(id|item_id|request_id)":"(chatcmpl-|cmpl-|msg_|req_|resp_|rs_|fc_)[0-9a-f_]+"'), r'"\1":"\2N"'),
    (re.compile(r'"id":"call_[0-9a-z]{8}"'), '"id":"call_N"'),
    (re.compile(r'"(created|created_at|completed_at)":\d{10}'), r'"\1":T'),
)

DIED = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
"""How the sentence about an engine that died begins; it goes on with where to look, and why it died."""


@contextmanager
def dialect_server(work: Path, **variables: str) -> Iterator[RunningServer]:
    """Models `tiny`, which the engine renders and whose calls and thoughts it parses, `plain`, which is rendered here,
    and `bert`, which embeds."""
    models = work / "home" / ".ollama" / "models"
    add_model(models, "tiny", tiny_llama(work / "tiny.gguf", chat_template=JINJA))
    add_model(models, "plain", tiny_llama(work / "plain.gguf", seed=2, chat_template=CHATML))
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    settings = {"CORRAL_ENGINE": str(FAKE_ENGINE), "OLLAMA_MAX_LOADED_MODELS": "9", **variables}
    with running_server(work / "home", **settings) as server:
        yield server


def filtered(body: bytes) -> str:
    """An answer with its ids and moments replaced: what is left is the same every time."""
    text = body.decode()
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text


def events(body: bytes) -> list[tuple[str, Any]]:
    """(name, data) of each event; data that is no JSON as it is."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            data = lines["data"]
            found.append((lines.get("event", ""), json.loads(data) if data.startswith("{") else data))
    return found


def last_asked(server: RunningServer, path: str = "/v1/chat/completions") -> dict[str, Any]:
    """The last body that an engine got on a path, which only one of the engines was asked on."""
    return [body for engine in engines(server.home) for body in engine.bodies(path)][-1]
