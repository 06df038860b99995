"""Requests to the native API and the answers that are right: the data's form, sending, and what may differ.

A case is a line of a `.jsonl` file beside this module; the files and their lines are sent in order, to one server that
starts on an empty store. `python -m tests.transcripts.record` writes the answers of new cases down; whether they are
right is for the person to judge who adds them, by the section that `spec` names.
"""

import hashlib
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.tiny_models import tiny_bert, tiny_llama, tiny_llava

FOLDER = Path(__file__).parent
FILES = ("routes", "bodies", "blobs", "create", "models", "generate", "chat", "embed", "transfer")
"""In the order they are sent."""

VARIABLES = {"TZ": "UTC", "OLLAMA_CONTEXT_LENGTH": "2048", "OLLAMA_NUM_PARALLEL": "2"}
"""The server's environment: what else would depend on the machine."""

JINJA = (
    "{#- unlike any template that is known by name, so that the engine itself has to render it -#}"
    "{%- for message in messages -%}"
    "[{{ message['role'] | upper }}] {{ message['content'] | trim }} [/{{ message['role'] | upper }}]{{ '\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}[ASSISTANT] {% endif -%}"
)
"""The chat template of the uploaded file `@native`."""

UNCOUNTED = ("date", "content-length", "server", "x-corral-version", "x-request-id", "request-id", "server-timing")
"""Headers that are not compared: they follow from the clock, from the body and from the release."""


@dataclass(frozen=True)
class Answer:
    """What came back. `body` has gone through the filters; headers in lower case, sorted."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> "Answer":
        return cls(recorded["status"], tuple((name, value) for name, value in recorded["headers"]), recorded["body"])

    def as_json(self) -> dict[str, Any]:
        return {"status": self.status, "headers": [list(header) for header in self.headers], "body": self.body}


@dataclass(frozen=True)
class Case:
    """One request. `spec` names the section it follows from; `mode` is `exact`, or `words` when a model answers."""

    name: str
    spec: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    mode: str
    response: Answer | None

    @classmethod
    def of(cls, line: bytes) -> "Case":
        row = json.loads(line)
        answer = Answer.of(row["response"]) if row.get("response") else None
        return cls(
            row["name"],
            row["spec"],
            row["method"],
            row["path"],
            row.get("headers", {}),
            row.get("body"),
            row.get("mode", "exact"),
            answer,
        )

    def line(self, answer: Answer) -> str:
        """The case with its answer, as it stands in a file."""
        row = {
            "name": self.name,
            "spec": self.spec,
            "method": self.method,
            "path": self.path,
            **({"headers": dict(self.headers)} if self.headers else {}),
            **({} if self.body is None else {"body": self.body}),
            **({} if self.mode == "exact" else {"mode": self.mode}),
            "response": answer.as_json(),
        }
        return json.dumps(row, ensure_ascii=False) + "\n"


def cases(file: str) -> list[Case]:
    return [Case.of(line) for line in (FOLDER / f"{file}.jsonl").read_bytes().split(b"\n") if line]


class Uploads:
    """The files that cases speak of by name: `@starter` is the real model, the others are small ones of random weights.

    A body that is nothing but a name stands for the file's bytes, elsewhere the name stands for its digest.
    """

    def __init__(self, starter: Path, folder: Path) -> None:
        tiny_llama(folder / "bare.gguf")
        tiny_llama(folder / "native.gguf", chat_template=JINJA)
        tiny_bert(folder / "bert.gguf")
        tiny_llava(folder / "llava.gguf", folder / "projector.gguf")
        (folder / "text").write_bytes(b"this is no model\n")
        (folder / "broken").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
        self.paths = {"@starter": starter}
        for file in ("bare.gguf", "native.gguf", "bert.gguf", "llava.gguf", "projector.gguf", "text", "broken"):
            self.paths[f"@{file.removesuffix('.gguf')}"] = folder / file
        self.digests = {name: _digest(path) for name, path in self.paths.items()}

    def body(self, value: Any) -> bytes | None:
        """What is sent for a case's `body`: nothing, the file, the text as it is, or JSON."""
        if value is None:
            return None
        if isinstance(value, str):
            return self.paths[value].read_bytes() if value in self.paths else _spelled_out(value).encode()
        return json.dumps(self._filled(value)).encode()

    def path(self, text: str) -> str:
        return re.sub(r"@[a-z]+", lambda match: f"sha256:{self.digests[match[0]]}", text)

    def _filled(self, value: Any) -> Any:
        match value:
            case str():
                return f"sha256:{self.digests[value]}" if value in self.digests else _spelled_out(value)
            case list():
                return [self._filled(item) for item in value]
            case dict():
                return {key: self._filled(item) for key, item in value.items()}
            case _:
                return value


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spelled_out(text: str) -> str:
    """`@words:3` is `word word word`, `@nested:3` is `[[[`: what would be too long to write down."""
    text = re.sub(r"@words:(\d+)", lambda match: " ".join(["word"] * int(match[1])), text)
    return re.sub(r"@nested:(\d+)", lambda match: "[" * int(match[1]), text)


def send(url: str, case: Case, uploads: Uploads, store: Path) -> Answer:
    """Sends a case over a connection of its own; `store` is the folder of the server's models."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
    body = uploads.body(case.body)
    connection.putrequest(case.method, uploads.path(case.path), skip_host="Host" in case.headers)
    for name, value in case.headers.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    data = response.read()
    headers = sorted((name.lower(), value) for name, value in response.getheaders())
    connection.close()
    kept = tuple((name, value) for name, value in headers if name not in UNCOUNTED)
    return Answer(response.status, kept, filtered(data.decode("utf-8"), case.mode, uploads.digests, store))


def filtered(text: str, mode: str, digests: Mapping[str, str], store: Path) -> str:
    """The text with everything in it replaced that may differ from one run or machine to the next."""
    for name, digest in digests.items():
        text = text.replace(digest, name).replace(f"ing {digest[:12]}", f"ing {name}")
    text = text.replace(str(store), "/models")
    filters = (*WORDS.values(), *FILTERS.values()) if mode == "words" else FILTERS.values()
    for pattern, replacement in filters:
        text = pattern.sub(replacement, text)
    return "\n".join(_without_repeats(text.split("\n"))) if mode == "words" else text


Filter = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_TEXT = r'"(?:[^"\\]|\\.)*"'

FILTERS: dict[str, Filter] = {
    "moments": (
        re.compile(r'"(created_at|modified_at|expires_at)":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"'),
        r'"\1":"<moment>"',
    ),
    "durations": (re.compile(r'"((?:total|load|prompt_eval|eval)_duration)":\d+'), r'"\1":<ns>'),
    "memory": (re.compile(rf'("model":{_TEXT},"size":)\d+'), r"\1<bytes>"),
    "digests": (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    "numbers": (
        re.compile(r"\[-?\d+(?:\.\d+)?(?:e-?\d+)?(?:,-?\d+(?:\.\d+)?(?:e-?\d+)?){7,}\]"),
        lambda match: f"[<{match[0].count(',') + 1} numbers>]",
    ),
    "ids": (re.compile(r'"call_[a-z0-9]{8}"'), '"<id>"'),
    "order within a second": (
        re.compile(r'(?<=^\{"models":\[)\{"name":.*"modified_at".*\}(?=\]\}$)'),
        lambda match: _by_name(match[0]),
    ),
    "versions": (re.compile(r'"(version|corral)":"\d+\.\d+\.\d+[^"]*"'), r'"\1":"<version>"'),
}
"""What differs between runs. Vectors and lists of token ids keep their length."""

WORDS: dict[str, Filter] = {
    "texts": (re.compile(rf'"(response|content|thinking|token)":(?!""){_TEXT}'), r'"\1":"<text>"'),
    "log probabilities": (re.compile(r'"logprob":-?\d+(?:\.\d+)?(?:e-?\d+)?'), '"logprob":<number>'),
    "bytes": (re.compile(r'"bytes":\[[\d,]+\]'), '"bytes":[<bytes>]'),
    "context": (re.compile(r'"context":\[[^]]*\]'), '"context":[<tokens>]'),
    "tokens until the model stopped": (
        re.compile(r'("done_reason":"stop".*"eval_count":)\d+'),
        r"\1<count>",
    ),
}
"""What differs between machines: what the model says, since arithmetic does. Equal lines of a stream become one."""


def _by_name(entries: str) -> str:
    return ",".join(sorted(re.split(r'(?<=\}),(?=\{"name":)', entries)))


def _without_repeats(lines: Sequence[str]) -> Iterator[str]:
    before = ""
    for line in lines:
        if line != before:
            yield line
        before = line
