"""What the suite measures: a server with Ollama's API, and the engine by itself. Both give the same values.

A side streams answers and says how long they took, by the client's clock; nothing here knows what is measured.
"""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

MODEL = "suite"
OPEN_TOKENS = 150
"""Tokens of an answer without `num_predict` after which its client leaves: a small model may never end."""


@dataclass(frozen=True)
class Answer:
    """Seconds to the first piece of text and to the end, and the tokens."""

    first: float
    whole: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second after the first."""
        return (self.tokens - 1) / max(1e-9, self.whole - self.first)


class Api:
    """A server with Ollama's API; `process` where it runs on this machine."""

    def __init__(self, host: str, process: psutil.Process | None) -> None:
        self.host, self.process = host, process

    def stream(self, prompt: str, tokens: int, temperature: float = 0.8) -> Answer:
        """Goes on with a raw prompt; 0 tokens: no `num_predict`, and the client leaves after `OPEN_TOKENS`."""
        body = {"model": MODEL, "prompt": prompt, "raw": True, "options": _options(tokens, temperature)}
        return self._ask("/api/generate", body, most=0 if tokens else OPEN_TOKENS)

    def chat(self, messages: list[dict[str, str]], tokens: int) -> tuple[Answer, str]:
        """One turn, and what was said."""
        said: list[str] = []
        body = {"model": MODEL, "messages": messages, "options": _options(tokens, 0.0)}
        return self._ask("/api/chat", body, said), "".join(said)

    def embed(self, model: str, texts: Sequence[str]) -> float:
        """Seconds."""
        began = time.perf_counter()
        self.post("/api/embed", {"model": model, "input": list(texts)})
        return time.perf_counter() - began

    def unload(self) -> None:
        self.post("/api/generate", {"model": MODEL, "keep_alive": 0})
        while self.get("/api/ps")["models"]:
            time.sleep(0.02)

    def tags(self) -> float:
        """Seconds."""
        began = time.perf_counter()
        self.get("/api/tags")
        return time.perf_counter() - began

    def cpu(self) -> float:
        """Processor time of the server itself, without its workers, in seconds."""
        assert self.process is not None
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def pss(self) -> float:
        """Bytes that the server and its workers hold, shared pages counted in part."""
        assert self.process is not None
        return sum(one.memory_full_info().pss for one in [self.process, *self.process.children(recursive=True)])

    def get(self, path: str) -> Any:
        return json.loads(self._whole("GET", path, None))

    def post(self, path: str, body: Any) -> Any:
        return json.loads(self._whole("POST", path, {**body, "stream": False}))

    def _whole(self, method: str, path: str, body: Any) -> bytes:
        connection = http.client.HTTPConnection(self.host, timeout=600)
        connection.request(method, path, None if body is None else json.dumps(body))
        with connection.getresponse() as response:
            text = response.read()
            assert response.status == 200, text
        connection.close()
        return text

    def _ask(self, path: str, body: dict[str, Any], said: list[str] | None = None, most: int = 0) -> Answer:
        began, first, tokens = time.perf_counter(), 0.0, 0
        for number, line in enumerate(lines(self.host, path, body, {})):
            if number + 1 == most:
                tokens = most
                break
            event = json.loads(line)
            text = event.get("response") or event.get("message", {}).get("content", "")
            if text and not first:
                first = time.perf_counter() - began
            if said is not None:
                said.append(text)
            tokens = event.get("eval_count", tokens)
        whole = time.perf_counter() - began
        return Answer(first or whole, whole, tokens)


class Bare:
    """The engine asked directly."""

    process = None

    def __init__(self, host: str, key: str) -> None:
        self._host, self._headers = host, {"Authorization": f"Bearer {key}"}

    def stream(self, prompt: str, tokens: int, temperature: float = 0.8) -> Answer:
        body = {"prompt": prompt, "stream": True, "n_predict": tokens or -1, "temperature": temperature}
        began, first, count = time.perf_counter(), 0.0, 0
        for line in lines(self._host, "/completion", body, self._headers):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("content") and not first:
                first = time.perf_counter() - began
            count = event.get("tokens_predicted", count)
        whole = time.perf_counter() - began
        return Answer(first or whole, whole, count)


def _options(tokens: int, temperature: float) -> dict[str, Any]:
    return {"temperature": temperature, "num_ctx": 4096, **({"num_predict": tokens} if tokens else {})}


def lines(host: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> Iterator[bytes]:
    connection = http.client.HTTPConnection(host, timeout=600)
    connection.request("POST", path, json.dumps(body), headers)
    try:
        with connection.getresponse() as response:
            assert response.status == 200, response.read()
            yield from response
    finally:
        connection.close()


def together(side: Api | Bare, prompts: Sequence[str], tokens: int) -> tuple[float, float]:
    """Tokens a second of all answers that are asked for at once, and seconds to the slowest first token."""
    answers: list[Answer] = []

    def ask(prompt: str) -> None:
        answers.append(side.stream(prompt, tokens))

    clients = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    began = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(answers) == len(prompts), "an answer failed"
    return sum(one.tokens for one in answers) / (time.perf_counter() - began), max(one.first for one in answers)
