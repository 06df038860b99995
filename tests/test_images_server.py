"""Pictures through the server, seen by real models: which, how many, where they stand; refused where nobody can see."""

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_gemma3, tiny_llama, tiny_llava

JINJA = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant] "
"""A template that only the engine can run."""

ENDLESS = "{% for message in messages %}[{{ message.role }}] {{ message.content }}{% endfor %}"
"""One that asks for no answer."""

MODELS = ("llava", "llava-native", "gemma")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models that see: LLaVA's and Gemma's kind, and one whose own template the engine runs."""
    home = tmp_path_factory.mktemp("images")
    tiny_llava(home / "model.gguf", home / "projector.gguf")
    tiny_gemma3(home / "gemma.gguf", home / "gemma-projector.gguf")
    tiny_llava(home / "native.gguf", home / "native-projector.gguf", chat_template=JINJA)
    tiny_llava(home / "endless.gguf", home / "endless-projector.gguf", chat_template=ENDLESS)
    tiny_llama(home / "blind.gguf")
    with running_server(home, OLLAMA_MAX_LOADED_MODELS="4") as server:
        create(server, "llava", home / "model.gguf", home / "projector.gguf")
        add_model(server.models, "llava-native", home / "native.gguf", home / "native-projector.gguf")
        add_model(server.models, "gemma", home / "gemma.gguf", home / "gemma-projector.gguf")
        add_model(server.models, "blind", home / "blind.gguf")
        add_model(server.models, "endless", home / "endless.gguf", home / "endless-projector.gguf")
        yield server


def create(server: RunningServer, name: str, *files: Path) -> None:
    """Uploads files and makes a model of them, as a client does."""
    digests = {file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files}
    for file in files:
        assert post(server, f"/api/blobs/{digests[file.name]}", file.read_bytes()).status == 201
    made = post(server, "/api/create", {"model": name, "files": digests, "stream": False})
    assert made.json == {"status": "success"}


def picture(colour: str, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def request(model: str, route: str, text: str, images: list[str], **more: Any) -> dict[str, Any]:
    options = {"temperature": 0, "num_predict": 2, "num_thread": 1}
    body = {"model": model, "stream": False, "logprobs": True, "top_logprobs": 20, "options": options, **more}
    if route == "/api/generate":
        return {**body, "prompt": text, "images": images}
    return {**body, "messages": [{"role": "user", "content": text, "images": images}]}


def look(server: RunningServer, model: str, route: str, *colours: str, text: str = "what is this", **more: Any) -> Any:
    """Log probabilities of what may be said first about pictures of these colours, and the prompt's length."""
    answer = post(server, route, request(model, route, text, [picture(colour) for colour in colours], **more))
    assert answer.status == 200, answer.body
    logprobs = [entry for line in answer.lines for entry in line.get("logprobs", [])]
    return (
        {entry["token"]: entry["logprob"] for entry in logprobs[0]["top_logprobs"]},
        answer.lines[-1]["prompt_eval_count"],
    )


def apart(one: tuple[dict[str, float], int], other: tuple[dict[str, float], int]) -> float:
    """How far two answers' log probabilities are from each other."""
    shared = one[0].keys() & other[0].keys()
    return max(abs(one[0][token] - other[0][token]) for token in shared) if shared else 99.0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
def test_what_a_model_says_depends_on_the_picture(server: RunningServer, model: str, route: str) -> None:
    red, again, blue = (look(server, model, route, colour) for colour in ("red", "red", "blue"))
    assert apart(red, again) < 0.01
    assert apart(red, blue) > 0.1
    assert red[1] == blue[1]


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_sees_the_same(server: RunningServer, model: str) -> None:
    whole = look(server, model, "/api/chat", "red")
    streamed = look(server, model, "/api/chat", "red", stream=True)
    assert apart(whole, streamed) < 0.01


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_pictures_counts(server: RunningServer, model: str) -> None:
    one = look(server, model, "/api/chat", "red", "blue")
    other = look(server, model, "/api/chat", "blue", "red")
    alone = look(server, model, "/api/chat", "red")
    assert apart(one, other) > 0.1
    assert one[1] == other[1] > alone[1] + 10


def test_a_picture_stands_where_its_mark_is(server: RunningServer) -> None:
    before = look(server, "llava", "/api/chat", "red", text="[img]look at it")
    unmarked = look(server, "llava", "/api/chat", "red", text="look at it")
    after = look(server, "llava", "/api/chat", "red", text="look at it[img]")
    assert apart(before, unmarked) < 0.01
    assert apart(before, after) > 0.1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("words", ["<__media__>", "[img-0]", "[img-1]", "<__image__>", "<image>", "[img]"])
def test_words_of_the_engine_are_words_beside_a_picture(server: RunningServer, model: str, words: str) -> None:
    answer = post(server, "/api/chat", request(model, "/api/chat", f"see {words} here", [picture("red")]))
    assert answer.status == 200, answer.body


def test_a_prompt_that_ends_in_a_picture_is_answered(server: RunningServer) -> None:
    """llama-server aborts where nothing follows the last picture."""
    answer = post(server, "/api/generate", request("gemma", "/api/generate", "see [img-0]", [picture("red")], raw=True))
    assert (answer.status, answer.json["eval_count"]) == (200, 2)


def test_a_template_that_ends_in_a_picture_is_refused(server: RunningServer) -> None:
    answer = post(server, "/api/chat", request("endless", "/api/chat", "see", [picture("red")]))
    expected = "the model's template ends the prompt in a picture, which the engine cannot go on from"
    assert (answer.status, answer.json) == (400, {"error": expected})


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "JPEG"])
def test_other_kinds_look_the_same(server: RunningServer, kind: str) -> None:
    body = request("llava", "/api/generate", "what is this", [picture("red", kind)])
    answer = post(server, "/api/generate", body)
    entries = answer.json["logprobs"][0]["top_logprobs"]
    other = {entry["token"]: entry["logprob"] for entry in entries}, answer.json["prompt_eval_count"]
    assert apart(look(server, "llava", "/api/generate", "red"), other) < 0.1


@pytest.mark.parametrize("model", MODELS)
def test_pictures_of_a_conversation_keep_their_places(server: RunningServer, model: str) -> None:
    def said(first: str, second: str) -> Answer:
        turns = [
            {"role": "user", "content": "one", "images": [picture(first)]},
            {"role": "assistant", "content": "seen"},
            {"role": "user", "content": "two [img] there", "images": [picture(second)]},
        ]
        return post(server, "/api/chat", {"model": model, "messages": turns, "_debug_render_only": True})

    info = said("red", "blue").json["_debug_info"]
    assert info["image_count"] == 2
    assert re.findall(r"\[img-\d\]", info["rendered_template"]) == ["[img-0]", "[img-1]"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_picture_is_refused(server: RunningServer, model: str, stream: bool) -> None:
    text = base64.b64encode(b"no picture at all").decode()
    answer = post(server, "/api/chat", request(model, "/api/chat", "see", [picture("red"), text], stream=stream))
    expected = "image 2 cannot be used: neither a picture (PNG, JPEG, WebP, GIF, BMP) nor a sound (WAV, MP3, FLAC)"
    assert (answer.status, answer.json) == (400, {"error": expected})


@pytest.mark.parametrize("model", ["llava", "llava-native"])
def test_who_sees_need_not_hear(server: RunningServer, model: str) -> None:
    sound = base64.b64encode(b"ID3\x04" + bytes(40)).decode()
    answer = post(server, "/api/chat", request(model, "/api/chat", "hear", [sound]))
    assert (answer.status, answer.json) == (400, {"error": f'"{model}:latest" does not support audio'})


@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("wanted", ["", "json"])
def test_a_model_without_eyes_refuses(server: RunningServer, route: str, wanted: str) -> None:
    answer = post(server, route, request("blind", route, "see", [picture("red")], format=wanted))
    expected = "Multimodal data provided, but model does not support multimodal requests."
    assert (answer.status, answer.json) == (400, {"error": expected})


def test_a_model_that_sees_has_room_to(server: RunningServer) -> None:
    look(server, "llava", "/api/chat", "red", options={"num_ctx": 64, "num_predict": 1, "num_thread": 1})
    loaded = {model["name"]: model["context_length"] for model in ask(server, "GET", "/api/ps").json["models"]}
    assert loaded["llava:latest"] == 2048
    shown = post(server, "/api/show", {"model": "llava"}).json
    assert shown["capabilities"] == ["completion", "vision"]
