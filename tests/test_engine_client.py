"""What the client sends to an engine and makes of its refusals, seen in the fake engine's journal."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from corral.engine.base import CompletionRequest, EngineChat, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.errors import EngineDied, EngineError, EngineRefused
from corral.messages import Message, Picture, Text, media_of
from tests.conftest import FAKE_ENGINE
from tests.engines import engines, open_to

SPEC = RunnerSpec(model="model.gguf", num_ctx=2048, slots=4, pool=8192)

WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LlamaEngine, None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    engine = await launch(
        SPEC, log=tmp_path / "worker.log", stall_timeout=20, program=str(FAKE_ENGINE), cage=open_to(tmp_path)
    )
    yield engine
    await engine.close()


MP3S = [b"ID3\x04", *(bytes([0xFF, second]) for second in (0xFB, 0xF3, 0xF2, 0xFA, 0xE3, 0xE2))]


@pytest.mark.parametrize("file", MP3S, ids=[file.hex() for file in MP3S])
async def test_every_kind_of_mp3_is_sent_as_sound(tmp_path: Path, engine: LlamaEngine, file: bytes) -> None:
    await engine.render(EngineChat(messages=(Message.of("user", "listen", media=[media_of(file)]),), max_tokens=1))
    (body,) = engines(tmp_path)[0].bodies("/apply-template")
    text, sound = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "listen"}
    assert (sound["type"], sound["input_audio"]["format"]) == ("input_audio", "mp3")


async def test_sounds_and_pictures_are_sent_as_what_they_are(tmp_path: Path, engine: LlamaEngine) -> None:
    await engine.render(EngineChat(messages=(Message.of("user", media=[media_of(WAV), media_of(PNG)]),), max_tokens=1))
    (body,) = engines(tmp_path)[0].bodies("/apply-template")
    sound, picture = body["messages"][0]["content"]
    assert sound["input_audio"]["format"] == "wav"
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")


async def test_parts_are_sent_in_their_order(tmp_path: Path, engine: LlamaEngine) -> None:
    content = (Text("first "), Picture(PNG), Text(" then "), Picture(b"BM"), Text(", what differs?"))
    await engine.render(EngineChat(messages=(Message(role="user", content=content),), max_tokens=1))
    (body,) = engines(tmp_path)[0].bodies("/apply-template")
    parts = body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ["first ", " then ", ", what differs?"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("!error=400", EngineRefused),
        ("!error=413", EngineRefused),
        ("!error=500", EngineError),
        ("!error=501", EngineError),
        ("!error-after=1", EngineError),
        ("!crash", EngineDied),
    ],
)
async def test_errors_are_of_their_kinds(engine: LlamaEngine, words: str, kind: type[EngineError]) -> None:
    with pytest.raises(EngineError) as raised:
        [piece async for piece in engine.complete(CompletionRequest(prompt=words, max_tokens=3))]
    assert type(raised.value) is kind
