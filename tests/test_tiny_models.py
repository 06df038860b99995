"""The tiny models are real ones: the engine loads them, completes, embeds, looks at pictures and listens to sounds."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.forms import tone
from tests.tiny_models import (
    CHATML,
    tiny_bert,
    tiny_bert_forward,
    tiny_bert_tokens,
    tiny_gemma3,
    tiny_llama,
    tiny_llava,
    tiny_lora,
    tiny_ultravox,
)

HOST = """
import json, os, sys
import xllamacpp
wanted = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = wanted["model"]
params.mmproj.path = wanted["projector"]
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in wanted["adapters"]]
params.embedding = wanted["embedding"]
params.n_ctx, params.port, params.cpuparams.n_threads = 512, 0, 1
params.fit_params = params.warmup = params.ui = False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""
"""A process of its own: native code that fails ends it, and not the tests. It ends with its standard input."""

Ask = Callable[..., Any]
Load = Callable[..., Ask]


@contextmanager
def engine(
    model: Path, *, projector: Path | None = None, adapter: Path | None = None, embedding: bool
) -> Iterator[Ask]:
    """Loads a model; what it yields asks the engine: `ask(path)` or `ask(path, body)`."""
    wanted = {
        "model": str(model),
        "projector": str(projector or ""),
        "adapters": [str(adapter)] if adapter else [],
        "embedding": embedding,
    }
    command = [sys.executable, "-c", HOST, json.dumps(wanted)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin
        assert process.stdout
        address = process.stdout.readline().strip()

        def ask(path: str, body: object = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)

        yield ask
        process.stdin.close()


@pytest.fixture
def load() -> Iterator[Load]:
    """Loads models that are let go when the test ends."""
    with ExitStack() as stack:

        def load_model(model: Path, *, embedding: bool = False, **more: Path) -> Ask:
            return stack.enter_context(engine(model, embedding=embedding, **more))

        yield load_model


def complete(ask: Ask, prompt: object, **options: object) -> Any:
    return ask("/completion", {"prompt": prompt, "n_predict": 32, "temperature": 0, "n_probs": 5, **options})


def first_logits(answer: Any) -> list[float]:
    """Of the first token: the logarithms of the likeliest probabilities."""
    return [candidate["logprob"] for candidate in answer["completion_probabilities"][0]["top_logprobs"]]


def test_a_tiny_llama_completes_the_same_each_time(tmp_path: Path, load: Load) -> None:
    ask = load(tiny_llama(tmp_path / "tiny.gguf", chat_template=CHATML))
    first, again, other = (complete(ask, prompt) for prompt in ("Hello", "Hello", "Goodbye"))
    assert (first["tokens_predicted"], first["stop_type"]) == (32, "limit")
    assert first["content"] == again["content"] != other["content"]
    wild = complete(ask, "Hello", temperature=2.0, seed=1, n_predict=200)
    assert wild["tokens_predicted"] == 200
    assert wild["content"].isascii()
    assert wild["content"].isprintable()


def test_another_seed_is_another_model(tmp_path: Path, load: Load) -> None:
    paths = [tiny_llama(tmp_path / f"{seed}.gguf", seed=seed) for seed in (0, 1)]
    one, other = (complete(load(path), "Hello")["content"] for path in paths)
    assert one != other


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    def digests(folder: Path) -> list[str]:
        folder.mkdir()
        tiny_llama(folder / "a", chat_template=CHATML)
        tiny_bert(folder / "b")
        tiny_llava(folder / "c", folder / "d")
        tiny_gemma3(folder / "e", folder / "f")
        tiny_lora(folder / "g")
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]

    assert digests(tmp_path / "once") == digests(tmp_path / "twice")


@pytest.mark.parametrize("text", ["Hello the world", "Größe und 日本語 🦙\n\t\0!", "".join(map(chr, range(1, 1000)))])
def test_any_text_survives_the_vocabulary(tmp_path: Path, load: Load, text: str) -> None:
    ask = load(tiny_llama(tmp_path / "tiny.gguf"))
    tokens = ask("/tokenize", {"content": text})["tokens"]
    assert ask("/detokenize", {"tokens": tokens})["content"] == text


def test_special_tokens_are_one_token_each(tmp_path: Path, load: Load) -> None:
    ask = load(tiny_llama(tmp_path / "tiny.gguf"))
    tokens = ask("/tokenize", {"content": "<|im_start|><|im_end|><|endoftext|>", "parse_special": True})["tokens"]
    assert tokens == [1, 2, 0]


def test_the_chat_template_is_the_engines(tmp_path: Path, load: Load) -> None:
    ask = load(tiny_llama(tmp_path / "tiny.gguf", chat_template=CHATML))
    messages = [{"role": "user", "content": "Hi"}]
    prompt = ask("/apply-template", {"messages": messages})["prompt"]
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    answer = ask("/v1/chat/completions", {"messages": messages, "max_tokens": 5})
    assert answer["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("outtype", ["f16", "f32"])
def test_an_adapter_changes_what_a_llama_says(tmp_path: Path, load: Load, outtype: str) -> None:
    model = tiny_llama(tmp_path / "tiny.gguf", outtype=outtype)
    plain = complete(load(model), "Hello")
    adapted = complete(load(model, adapter=tiny_lora(tmp_path / "lora.gguf")), "Hello")
    assert first_logits(plain) != first_logits(adapted)


TEXTS = ["hello world", "The cat, the sky!", "Why is the sky blue? Because: embedding models.", "Größe 日本語 xyzzy"]


def test_a_tiny_bert_embeds_as_numpy_does(tmp_path: Path, load: Load) -> None:
    path = tiny_bert(tmp_path / "bert.gguf")
    ask = load(path, embedding=True)
    vectors = []
    for text in TEXTS:
        tokens = ask("/tokenize", {"content": text, "add_special": True})["tokens"]
        assert tokens == tiny_bert_tokens(text)
        (answer,) = ask("/v1/embeddings", {"input": text})["data"]
        expected = tiny_bert_forward(path, tokens)
        assert np.dot(answer["embedding"], expected) / np.linalg.norm(answer["embedding"]) > 0.99999
        vectors.append(expected)
    likeness = np.array(vectors) @ np.array(vectors).T - np.eye(len(TEXTS))
    assert likeness.max() < 0.9


def picture(background: str, shape: str) -> str:
    """A PNG file of a rectangle on a background, in base64."""
    image = Image.new("RGB", (40, 30), background)
    image.paste(shape, (5, 5, 20, 20))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("build", [tiny_llava, tiny_gemma3])
def test_different_pictures_give_different_logits(
    tmp_path: Path, load: Load, build: Callable[[Path, Path], None]
) -> None:
    model, projector = tmp_path / "model.gguf", tmp_path / "projector.gguf"
    build(model, projector)
    ask = load(model, projector=projector)
    properties = ask("/props")
    assert properties["modalities"]["vision"] is True
    prompt = f"Look at {properties['media_marker']} and"

    def look(image: str) -> list[float]:
        return first_logits(complete(ask, {"prompt_string": prompt, "multimodal_data": [image]}))

    red, blue, red_again = picture("red", "green"), picture("blue", "white"), picture("red", "green")
    assert look(red) == pytest.approx(look(red_again), abs=1e-3)
    assert look(red) != pytest.approx(look(blue), abs=0.05)


def test_different_sounds_give_different_logits(tmp_path: Path, load: Load) -> None:
    model, projector = tmp_path / "model.gguf", tmp_path / "projector.gguf"
    tiny_ultravox(model, projector)
    ask = load(model, projector=projector)
    properties = ask("/props")
    assert properties["modalities"]["audio"] is True
    prompt = f"Listen to {properties['media_marker']} and"

    def listen(sound: bytes) -> list[float]:
        given = base64.b64encode(sound).decode()
        return first_logits(complete(ask, {"prompt_string": prompt, "multimodal_data": [given]}))

    low, high, low_again = tone(440), tone(2500), tone(440)
    assert listen(low) == pytest.approx(listen(low_again), abs=1e-3)
    assert listen(low) != pytest.approx(listen(high), abs=0.05)
