"""The HTTP client of our own server: one method a route, streams as iterators. Knows no terminal and starts no server.

Standard library only and plain code, so that a command starts fast. Whatever answers is taken to be hostile: `requests`
bounds its size, `answers` checks every member. Source: spec cli §1, api §7-§16.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from corral.client.answers import (
    VERSION,
    Installed,
    Json,
    Running,
    Shown,
    Version,
    chatted,
    generated,
    installed,
    member,
    members,
    models,
    progress,
    rendered,
    running,
    shown,
    tuple_of,
    version,
)
from corral.client.requests import CONNECT_SECONDS, KeyRefused, NotRunning, Requests, Stream
from corral.config.address import Address
from corral.errors import CorralError, NotFound
from corral.golang import durations

if TYPE_CHECKING:
    from corral.client.explained import Explained
    from corral.client.keys import Key
    from corral.client.live import Seen
    from corral.client.nodes import Moved, Node
    from corral.messages import Chunk, Message, Progress, Rendered, Think
    from corral.names import Digest

__all__ = ["Client", "KeyRefused", "NotRunning", "Stream"]

ANSWER_SECONDS = 30.0
"""How long the answer to a question about the store may take, on a busy machine and a slow disk."""

WATCH_SECONDS = 5.0
"""How long a look at what the server is doing may take."""


class Client:
    """Speaks to the server at `address`; every call is a connection of its own.

    All methods raise `NotRunning` when nothing listens, the error class of the answer's status (`NotFound`,
    `BadRequest`, …) with the server's sentence, and `CorralError` for an answer that cannot be understood. A stream's
    request is sent when its first item is asked for; closing it closes the connection, which cancels the request.
    """

    def __init__(self, address: Address, program: str = "corral", key: str = "") -> None:
        """`program` is the name that the server goes by in sentences; `key` is sent with every request."""
        self._requests = Requests(address, program, key)

    @property
    def address(self) -> Address:
        """Where the server is spoken to."""
        return self._requests.address

    def keys(self) -> tuple["Key", ...]:
        """The keys of the server, the oldest first."""
        from corral.client.keys import key

        return tuple(map(key, members(self._requests.ask("GET", "/api/keys", timeout=ANSWER_SECONDS), "keys")))

    def create_key(self, fields: Mapping[str, Json]) -> tuple["Key", str]:
        """Makes a key of these members of the request; the key and its secret."""
        from corral.client.keys import key

        made = self._requests.ask("POST", "/api/keys", fields, timeout=ANSWER_SECONDS)
        return key(made), member(made, "secret", str, "")

    def revoke_key(self, text: str) -> "Key":
        """Revokes the key of an id or a name."""
        from corral.client.keys import key

        return key(self._requests.ask("DELETE", "/api/keys", {"key": text}, timeout=ANSWER_SECONDS))

    def ping(self) -> None:
        """Returns when something answers at the address, whatever it says."""
        with self._requests.exchange("HEAD", "/", timeout=CONNECT_SECONDS):
            pass

    def version(self) -> Version:
        """The releases of Ollama and of Corral that the server is."""
        with self._requests.exchange("GET", "/api/version", timeout=CONNECT_SECONDS) as response:
            return version(self._requests.decode(self._requests.body(response)), response.headers.get(VERSION))

    def tags(self) -> tuple[Installed, ...]:
        """The models of the store, newest first."""
        return tuple(map(installed, models(self._requests.ask("GET", "/api/tags", timeout=ANSWER_SECONDS))))

    def ps(self) -> tuple[Running, ...]:
        """The loaded models, the one that stays longest first."""
        return tuple(map(running, models(self._requests.ask("GET", "/api/ps", timeout=ANSWER_SECONDS))))

    def watch(self) -> "Seen":
        """The loaded models with what they are doing, and the machine's memory. For a server that answers at once."""
        from corral.client.live import seen

        return seen(self._requests.ask("GET", "/api/ps?live=true", timeout=WATCH_SECONDS))

    def explain(self) -> tuple["Explained", ...]:
        """What became of the last requests, the newest first."""
        from corral.client.explained import explained

        return tuple(
            map(explained, members(self._requests.ask("GET", "/api/requests", timeout=ANSWER_SECONDS), "requests"))
        )

    def nodes(self) -> tuple["Node", ...]:
        """The machines that the server's models run on."""
        from corral.client.nodes import node

        return tuple(map(node, members(self._requests.ask("GET", "/api/nodes", timeout=ANSWER_SECONDS), "nodes")))

    def drain_node(self, name: str) -> tuple[bool, tuple["Moved", ...]]:
        """Moves all models away from a node, however long that takes: whether it is drained now, and what was moved."""
        from corral.client.nodes import moved

        answer = self._requests.ask("POST", "/api/nodes/drain", {"node": name})
        return member(answer, "drained", bool, False), tuple(map(moved, members(answer, "moved")))

    def resume_node(self, name: str) -> None:
        """Lets a drained node have models again."""
        self._requests.ask("POST", "/api/nodes/resume", {"node": name}, timeout=ANSWER_SECONDS)

    def quarantine(self) -> list[dict[str, Json]]:
        """The files that are not loaded, and those that were released, as `/api/quarantine` says it."""
        return members(self._requests.ask("GET", "/api/quarantine", timeout=ANSWER_SECONDS), "files")

    def release(self, model: str, *, for_good: bool = False) -> tuple[str, ...]:
        """Has a model's files loaded although they are in quarantine, or one by its digest; the digests of them."""
        asked = {"model": model, "for_good": for_good}
        answer = self._requests.ask("POST", "/api/quarantine/release", asked, timeout=ANSWER_SECONDS)
        return tuple_of(member(answer, "released", list, []), str, "released")

    def search(self, words: str, limit: int = 0) -> dict[str, Json]:
        """The answer of `/api/search`: models that can be pulled, at most `limit` of them, 0: as the server likes.

        `published.published` reads its `models`.
        """
        asked = {"q": words, **({"limit": str(limit)} if limit else {})}
        return self._requests.ask("GET", f"/api/search?{urlencode(asked, errors='replace')}")

    def show(self, model: str, *, verbose: bool = False, requirements: bool = False) -> Shown:
        """`verbose` has the server send arrays whole; `requirements`, what the model takes in memory there."""
        asked = {"model": model, "verbose": verbose, **({"requirements": True} if requirements else {})}
        return shown(self._requests.ask("POST", "/api/show", asked, timeout=ANSWER_SECONDS))

    def render(self, model: str, request: Mapping[str, Json]) -> "Rendered":
        """The prompt that a chat request amounts to; `request` are its other members."""
        return rendered(self._requests.ask("POST", "/api/render", {**request, "model": model}))

    def copy(self, source: str, destination: str) -> None:
        """Gives a model a second name; a model that has it already is replaced."""
        self._requests.do("POST", "/api/copy", {"source": source, "destination": destination}, timeout=ANSWER_SECONDS)

    def delete(self, model: str) -> None:
        """Deletes a model, and the files that no other model uses."""
        self._requests.do("DELETE", "/api/delete", {"model": model}, timeout=ANSWER_SECONDS)

    def generate(
        self,
        model: str,
        prompt: str = "",
        *,
        system: str = "",
        images: Sequence[bytes] = (),
        format: Json = None,
        options: Mapping[str, Json] | None = None,
        think: "Think" = None,
        keep_alive: float | None = None,
        progress: bool = False,
    ) -> Stream["Chunk"]:
        """Completes a prompt; an empty one loads the model, or unloads it when `keep_alive` (seconds) is 0.

        `progress`: chunks before the answer say what is happening, where the server can tell (`Chunk.progress`).
        """
        body: dict[str, Json] = {"model": model, "prompt": prompt, "system": system, "options": dict(options or {})}
        if images:
            body["images"] = [base64.b64encode(image).decode("ascii") for image in images]
        body |= _optional(format, think, keep_alive, progress=progress)
        return self._requests.read(generated, "/api/generate", body)

    def chat(
        self,
        model: str,
        messages: Sequence["Message"] = (),
        *,
        format: Json = None,
        options: Mapping[str, Json] | None = None,
        think: "Think" = None,
        keep_alive: float | None = None,
        progress: bool = False,
    ) -> Stream["Chunk"]:
        """Goes on with a conversation; an empty one loads or unloads the model as `generate` does.

        `progress` as in `generate`.
        """
        body: dict[str, Json] = {
            "model": model,
            "messages": [_message(message) for message in messages],
            "options": dict(options or {}),
        }
        body |= _optional(format, think, keep_alive, progress=progress)
        return self._requests.read(chatted, "/api/chat", body)

    def embed(
        self,
        model: str,
        inputs: Sequence[str],
        *,
        truncate: bool | None = None,
        dimensions: int = 0,
        keep_alive: float | None = None,
    ) -> tuple[tuple[float, ...], ...]:
        """A vector of norm 1 for each input, in their order; `dimensions` 0 keeps the model's own number of them.

        An input that is too long is cut unless `truncate` is false; then it is a `BadRequest`.
        """
        body: dict[str, Json] = {"model": model, "input": list(inputs), **_optional(None, None, keep_alive)}
        if truncate is not None:
            body["truncate"] = truncate
        if dimensions > 0:
            body["dimensions"] = dimensions
        vectors = member(self._requests.ask("POST", "/api/embed", body), "embeddings", list, [])
        return tuple(tuple_of(vector, int | float, "embeddings") for vector in vectors)

    def pull(self, model: str, *, source: str = "", insecure: bool = False) -> Stream["Progress"]:
        """Fetches a model from its registry, or from `source` (`file:///…`) under the name `model`."""
        body: dict[str, Json] = {"model": model, "insecure": insecure}
        if source:
            body["source"] = source
        return self._job("/api/pull", body)

    def push(self, model: str, *, insecure: bool = False) -> Stream["Progress"]:
        """Uploads a model to the registry in its name; `insecure`: over plain HTTP if it does not speak HTTPS."""
        return self._job("/api/push", {"model": model, "insecure": insecure})

    def create(self, model: str, fields: Mapping[str, Json]) -> Stream["Progress"]:
        """Makes a model; `fields` are the request's other members (spec api §11.1)."""
        return self._job("/api/create", {**fields, "model": model})

    def export(self, models: Sequence[str], path: Path) -> Stream["Progress"]:
        """Writes models into an archive at `path`, which is on the server's machine."""
        return self._job("/api/export", {"models": list(models), "path": _sendable(path)})

    def import_(self, path: Path, model: str = "") -> Stream["Progress"]:
        """Adds the models of an archive on the server's machine; all of them, or only `model`."""
        return self._job("/api/import", {"path": _sendable(path), **({"model": model} if model else {})})

    def has_blob(self, digest: "Digest") -> bool:
        """Whether the server's store has a file with this digest."""
        try:
            self._requests.do("HEAD", f"/api/blobs/{digest}", timeout=ANSWER_SECONDS)
        except NotFound:
            return False
        return True

    def add_blob(
        self, digest: "Digest", size: int, chunks: Iterable[bytes], progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Uploads a file; the server refuses it when its digest is another. `progress` gets the bytes sent so far."""
        headers = {"Content-Length": str(size)}
        with self._requests.exchange("POST", f"/api/blobs/{digest}", _counted(chunks, progress), headers) as response:
            self._requests.check(response)

    def _job(self, path: str, body: Mapping[str, Json]) -> Stream["Progress"]:
        """The steps of a long job. `CorralError` when the stream ends before the job says that it has succeeded."""
        status = ""
        with closing(self._requests.read(progress, path, body)) as steps:
            for step in steps:
                status = step.status
                yield step
        if status != "success":
            raise CorralError(f"the {self._requests.program} server ended its answer before the job was done")


def _counted(chunks: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(done)


def _sendable(path: Path) -> str:
    """A path as JSON can carry it; with other letters in it the server would take another file."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorralError(f'"{path}" cannot be sent to the server: its name is no UTF-8') from error
    return str(path)


def _optional(format: Json, think: "Think", keep_alive: float | None, *, progress: bool = False) -> dict[str, Json]:
    """Members that are left out when they are None. A keep-alive without end is written as -1."""
    body: dict[str, Json] = {}
    if format is not None:
        body["format"] = format
    if think is not None:
        body["think"] = think
    if progress:
        body["progress"] = True
    if keep_alive is not None:
        body["keep_alive"] = -1 if keep_alive == durations.FOREVER_SECONDS else keep_alive
    return body


def _message(message: "Message") -> dict[str, Json]:
    body: dict[str, Json] = {"role": message.role, "content": message.text}
    if message.thinking:
        body["thinking"] = message.thinking
    if message.media:
        body["images"] = [base64.b64encode(part.data).decode("ascii") for part in message.media]
    if message.tool_calls:
        body["tool_calls"] = [
            {"function": {"index": call.index, "name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body
