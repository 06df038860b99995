"""The official Python client, synchronous and asynchronous, against the real server and engine (spec api §23)."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_bert

CHAT = "smollm2:135m"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
BRIEFLY = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own: models are created and deleted here."""
    work = tmp_path_factory.mktemp("client")
    models = work / "home" / ".ollama" / "models"
    add_model(models, CHAT, starter_gguf)
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    with running_server(work / "home") as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> ollama.Client:
    return ollama.Client(host=server.url, timeout=60)


def test_chat_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat(CHAT, QUESTION, options=BRIEFLY)
    assert whole.message.role == "assistant"
    assert whole.message.content == "The capital of France is Paris."
    assert (whole.done, whole.done_reason, whole.model) == (True, "stop", CHAT)
    assert whole.eval_count == 8
    assert whole.prompt_eval_count is not None
    assert whole.prompt_eval_count > 10
    pieces = list(client.chat(CHAT, QUESTION, options=BRIEFLY, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_generate_whole_and_streamed_and_going_on(client: ollama.Client) -> None:
    whole = client.generate(CHAT, "The capital of France is", raw=True, options=BRIEFLY)
    assert whole.response is not None
    assert whole.response.startswith(" Paris")
    assert whole.context is None
    pieces = list(client.generate(CHAT, "The capital of France is", raw=True, options=BRIEFLY, stream=True))
    assert "".join(piece.response or "" for piece in pieces) == whole.response
    first = client.generate(CHAT, "My name is Ada.", options=BRIEFLY)
    second = client.generate(CHAT, "What is my name?", context=first.context, options=BRIEFLY)
    assert first.context is not None
    assert second.context is not None
    assert list(second.context[: len(first.context)]) == list(first.context)


def test_a_schema_is_kept(client: ollama.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
    }
    answer = client.chat(CHAT, QUESTION, format=schema, options={"temperature": 0, "num_predict": 60})
    found = json.loads(answer.message.content or "")
    assert set(found) == {"city", "sure"}
    assert isinstance(found["sure"], bool)


def test_logprobs(client: ollama.Client) -> None:
    answer = client.generate(CHAT, "The capital of France is", raw=True, options=BRIEFLY, logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert answer.eval_count is not None
    assert len(answer.logprobs) == answer.eval_count
    assert "".join(item.token for item in answer.logprobs) == answer.response
    for item in answer.logprobs:
        assert item.logprob <= 0
        assert item.top_logprobs is not None
        assert len(item.top_logprobs) == 2
        assert item.top_logprobs[0].logprob >= item.top_logprobs[1].logprob


def test_list_show_ps(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert set(listed) == {"smollm2:135m", "bert:latest"}
    details = listed[CHAT].details
    assert details is not None
    assert details.family == "llama"
    shown = client.show(CHAT)
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    client.generate(CHAT, keep_alive=60)
    (running,) = [model for model in client.ps().models if model.model == CHAT]
    assert running.context_length == 4096
    assert running.expires_at is not None
    assert running.size is not None
    assert running.size > 50 << 20


def test_embed(client: ollama.Client) -> None:
    answer = client.embed("bert", ["the cat", "the dog"], dimensions=8)
    assert [len(vector) for vector in answer.embeddings] == [8, 8]
    assert len(client.embeddings("bert", "the cat").embedding) == 64


def test_create_copy_delete(client: ollama.Client) -> None:
    parameters = {"num_predict": 3, "temperature": 0}
    assert client.create("mine", from_=CHAT, system="You are a pirate.", parameters=parameters).status == "success"
    assert client.show("mine").modelfile is not None
    assert client.generate("mine", "Hello").eval_count == 3
    assert client.copy("mine", "yours").status == "success"
    assert client.delete("mine").status == "success"
    assert client.delete("yours").status == "success"
    with pytest.raises(ollama.ResponseError) as caught:
        client.delete("mine")
    assert (caught.value.status_code, caught.value.error) == (404, "model 'mine' not found")


def test_errors_have_their_status_and_sentence(client: ollama.Client, server: RunningServer) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("nobody", QUESTION)
    assert (caught.value.status_code, caught.value.error) == (404, "model 'nobody' not found")
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.generate(CHAT, "x", options={"num_ctx": "many"}, stream=True))
    assert (caught.value.status_code, caught.value.error) == (500, 'option "num_ctx" must be of type integer')
    with pytest.raises(ollama.ResponseError):
        client.pull(f"{server.host}/library/nothing", insecure=True)


def test_unload(client: ollama.Client) -> None:
    client.generate(CHAT)
    assert client.generate(CHAT, keep_alive=0).done_reason == "unload"


async def test_the_asynchronous_client(server: RunningServer) -> None:
    client = ollama.AsyncClient(host=server.url, timeout=60)
    stream = await client.chat(CHAT, QUESTION, options=BRIEFLY, stream=True)
    text = "".join([piece.message.content or "" async for piece in stream])
    assert text == "The capital of France is Paris."
    answers: list[Any] = await asyncio.gather(
        *(client.generate(CHAT, f"{number} is", raw=True, options=BRIEFLY) for number in range(3)),
        client.embed("bert", "the cat"),
        client.list(),
        client.ps(),
        client.show(CHAT),
    )
    assert all(answer.done for answer in answers[:3])


async def test_an_asynchronous_client_that_stops_listening_stops_the_work(server: RunningServer) -> None:
    client = ollama.AsyncClient(host=server.url, timeout=60)
    stream = await client.generate(CHAT, "Count to a thousand:", stream=True)
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    whole = await client.generate(CHAT, "Hello", options=BRIEFLY)
    assert whole.done
