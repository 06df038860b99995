"""The real MiniLM, converted and asked through the real engine, against a forward pass of the same weights in NumPy.

Two kinds of text are left out, since the engine cuts them up otherwise than the published tokenizer: Hangul, which that
takes apart into its letters, and words of more than a hundred characters, which that does not read.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from corral.convert import convert
from tests.asking import post
from tests.conftest import RunningServer, add_model, running_server

Array = np.ndarray[Any, Any]

HEADS = 12
LAYERS = 6

TEXTS = [
    "a",
    ".",
    "   ",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "Wie wird das Wetter heute in Zürich?",
    "l'été, où êtes-vous allés à la plage ?",
    "今天天气很好，我们去公园散步吧。",
    "日本語のテキストを埋め込む",
    "שלום עולם",
    "Привет, как дела?",
    "😀 🎉 emoji 👩‍👩‍👧‍👦 family",
    "def add(a, b):\n    return a + b  # plus",
    "https://example.org/path?query=1&other=%20",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 90,
    "1234567890 3.14159 -2e10 $5.00",
    "[CLS] a text that names special tokens [SEP] and [MASK]",
    "MiXeD CaSe TeXt WITH CAPITALS",
    "the model embeds a long text of many words again and again " * 30,
]


@pytest.fixture(scope="module")
def server(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("minilm")
    files = {file.relative_to(minilm_folder).as_posix(): file for file in minilm_folder.rglob("*") if file.is_file()}
    convert(files, work / "minilm.gguf", report=lambda step: None)
    add_model(work / "home" / ".ollama" / "models", "minilm", work / "minilm.gguf")
    with running_server(work / "home") as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(minilm_folder: Path) -> Tokenizer:
    found = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


@pytest.fixture(scope="module")
def weights(minilm_folder: Path) -> dict[str, Array]:
    return {name: array for name, array in load_file(minilm_folder / "model.safetensors").items() if array.ndim}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_a_text_has_the_vector_that_the_weights_give_it(
    server: RunningServer, tokenizer: Tokenizer, weights: dict[str, Array], text: str
) -> None:
    ids = tokenizer.encode(text).ids
    answer = post(server, "/api/embed", {"model": "minilm", "input": text})
    assert answer.status == 200, answer.body
    assert answer.json["prompt_eval_count"] == len(ids)
    (vector,) = answer.json["embeddings"]
    assert np.dot(vector, embedding(weights, ids)) > 0.999


def test_the_model_is_known_for_what_it_does(server: RunningServer) -> None:
    shown = post(server, "/api/show", {"model": "minilm"}).json
    assert shown["capabilities"] == ["embedding"]
    assert shown["details"]["quantization_level"] == "F16"
    assert shown["model_info"]["bert.context_length"] == 512


def embedding(weights: dict[str, Array], ids: list[int]) -> Array:
    """The mean of the last layer, of length 1."""
    hidden = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm(hidden, weights, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        attended = linear(attention(hidden, weights, at), weights, f"{at}.attention.output.dense")
        hidden = norm(hidden + attended, weights, f"{at}.attention.output.LayerNorm")
        inner = linear(hidden, weights, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        hidden = norm(hidden + linear(inner, weights, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm")
    mean = hidden.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def attention(hidden: Array, weights: dict[str, Array], at: str) -> Array:
    width = hidden.shape[1] // HEADS
    query, key, value = (
        linear(hidden, weights, f"{at}.attention.self.{part}").reshape(-1, HEADS, width).swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(1, 2) / math.sqrt(width)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
    return np.asarray(mixed.swapaxes(0, 1).reshape(hidden.shape))


def linear(hidden: Array, weights: dict[str, Array], name: str) -> Array:
    return np.asarray(hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def norm(hidden: Array, weights: dict[str, Array], name: str) -> Array:
    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])
