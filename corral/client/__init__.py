"""The HTTP client of our own server: one method a route, streams as iterators. Knows no terminal and starts no server.

Standard library only and plain code, so that a command starts fast. Whatever answers is taken to be hostile: lines are
bounded, every member is checked (`answers`), and what goes wrong becomes a sentence. Source: spec cli §1, api §7-§16.
"""

import base64
import http.client
import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from corral import __version__
from corral.client.answers import (
    STREAM_HEADERS,
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
from corral.config.address import Address
from corral.errors import BadRequest, Busy, CorralError, Forbidden, NotFound
from corral.golang import durations
from corral.system.current import PLATFORM

if TYPE_CHECKING:
    from corral.client.explained import Explained
    from corral.client.keys import Key
    from corral.client.live import Seen
    from corral.client.nodes import Moved, Node
    from corral.messages import Chunk, Message, Progress, Rendered, Think
    from corral.names import Digest

T = TypeVar("T")
Stream: TypeAlias = Generator[T, None, None]
"""An answer whose items come one after the other; closing it cancels the request."""

MAX_LINE = 8 << 20
"""Bytes a line of a stream may have."""
MAX_ANSWER = 256 << 20
"""Bytes a plain answer may have; `show` with every token of a vocabulary takes some ten million."""
MAX_ERROR = 1 << 20
CONNECT_SECONDS = 10.0
"""How long a connection, or the answer to a question that needs no work, may take."""
ANSWER_SECONDS = 30.0
"""How long the answer to a question about the store may take, on a busy machine and a slow disk."""

WATCH_SECONDS = 5.0
"""How long a look at what the server is doing may take."""


class NotRunning(CorralError):
    """Nothing listens at the server's address."""


class KeyRefused(CorralError):
    """The server wants a key, and was sent none that it knows."""

    def __init__(self, address: Address, has_key: bool) -> None:
        what = "does not know the API key that it was sent" if has_key else "wants an API key"
        super().__init__(
            f'the server at "{address}" {what}; set OLLAMA_API_KEY to one of its keys '
            "(on its machine, `corral keys create NAME` makes one)"
        )


class Client:
    """Speaks to the server at `address`; every call is a connection of its own.

    All methods raise `NotRunning` when nothing listens, the error class of the answer's status (`NotFound`,
    `BadRequest`, …) with the server's sentence, and `CorralError` for an answer that cannot be understood. A stream's
    request is sent when its first item is asked for; closing it closes the connection, which cancels the request.
    """

    def __init__(self, address: Address, program: str = "corral", key: str = "") -> None:
        """`program` is the name that the server goes by in sentences; `key` is sent with every request."""
        self.address = address
        self.program = program
        self._key = key

    def keys(self) -> tuple["Key", ...]:
        """The keys of the server, the oldest first."""
        from corral.client.keys import key

        return tuple(map(key, members(self._ask("GET", "/api/keys", timeout=ANSWER_SECONDS), "keys")))

    def create_key(self, fields: Mapping[str, Json]) -> tuple["Key", str]:
        """Makes a key of these members of the request; the key and its secret."""
        from corral.client.keys import key

        made = self._ask("POST", "/api/keys", fields, timeout=ANSWER_SECONDS)
        return key(made), member(made, "secret", str, "")

    def revoke_key(self, text: str) -> "Key":
        """Revokes the key of an id or a name."""
        from corral.client.keys import key

        return key(self._ask("DELETE", "/api/keys", {"key": text}, timeout=ANSWER_SECONDS))

    def ping(self) -> None:
        """Returns when something answers at the address, whatever it says."""
        with self._exchange("HEAD", "/", timeout=CONNECT_SECONDS):
            pass

    def version(self) -> Version:
        """The releases of Ollama and of Corral that the server is."""
        with self._exchange("GET", "/api/version", timeout=CONNECT_SECONDS) as response:
            return version(self._decode(self._body(response)), response.headers.get(VERSION))

    def tags(self) -> tuple[Installed, ...]:
        """The models of the store, newest first."""
        return tuple(map(installed, models(self._ask("GET", "/api/tags", timeout=ANSWER_SECONDS))))

    def ps(self) -> tuple[Running, ...]:
        """The loaded models, the one that stays longest first."""
        return tuple(map(running, models(self._ask("GET", "/api/ps", timeout=ANSWER_SECONDS))))

    def watch(self) -> "Seen":
        """The loaded models with what they are doing, and the machine's memory. For a server that answers at once."""
        from corral.client.live import seen

        return seen(self._ask("GET", "/api/ps?live=true", timeout=WATCH_SECONDS))

    def explain(self) -> tuple["Explained", ...]:
        """What became of the last requests, the newest first."""
        from corral.client.explained import explained

        return tuple(map(explained, members(self._ask("GET", "/api/requests", timeout=ANSWER_SECONDS), "requests")))

    def nodes(self) -> tuple["Node", ...]:
        """The machines that the server's models run on."""
        from corral.client.nodes import node

        return tuple(map(node, members(self._ask("GET", "/api/nodes", timeout=ANSWER_SECONDS), "nodes")))

    def drain_node(self, name: str) -> tuple[bool, tuple["Moved", ...]]:
        """Moves all models away from a node, however long that takes: whether it is drained now, and what was moved."""
        from corral.client.nodes import moved

        answer = self._ask("POST", "/api/nodes/drain", {"node": name})
        return member(answer, "drained", bool, False), tuple(map(moved, members(answer, "moved")))

    def resume_node(self, name: str) -> None:
        """Lets a drained node have models again."""
        self._ask("POST", "/api/nodes/resume", {"node": name}, timeout=ANSWER_SECONDS)

    def quarantine(self) -> list[dict[str, Json]]:
        """The files that are not loaded, and those that were released, as `/api/quarantine` says it."""
        return members(self._ask("GET", "/api/quarantine", timeout=ANSWER_SECONDS), "files")

    def release(self, model: str, *, for_good: bool = False) -> tuple[str, ...]:
        """Has a model's files loaded although they are in quarantine, or one by its digest; the digests of them."""
        asked = {"model": model, "for_good": for_good}
        answer = self._ask("POST", "/api/quarantine/release", asked, timeout=ANSWER_SECONDS)
        return tuple_of(member(answer, "released", list, []), str, "released")

    def search(self, words: str, limit: int = 0) -> dict[str, Json]:
        """The answer of `/api/search`: models that can be pulled, at most `limit` of them, 0: as the server likes.

        `published.published` reads its `models`.
        """
        asked = {"q": words, **({"limit": str(limit)} if limit else {})}
        return self._ask("GET", f"/api/search?{urlencode(asked, errors='replace')}")

    def show(self, model: str, *, verbose: bool = False, requirements: bool = False) -> Shown:
        """`verbose` has the server send arrays whole; `requirements`, what the model takes in memory there."""
        asked = {"model": model, "verbose": verbose, **({"requirements": True} if requirements else {})}
        return shown(self._ask("POST", "/api/show", asked, timeout=ANSWER_SECONDS))

    def render(self, model: str, request: Mapping[str, Json]) -> "Rendered":
        """The prompt that a chat request amounts to; `request` are its other members."""
        return rendered(self._ask("POST", "/api/render", {**request, "model": model}))

    def copy(self, source: str, destination: str) -> None:
        """Gives a model a second name; a model that has it already is replaced."""
        self._do("POST", "/api/copy", {"source": source, "destination": destination}, timeout=ANSWER_SECONDS)

    def delete(self, model: str) -> None:
        """Deletes a model, and the files that no other model uses."""
        self._do("DELETE", "/api/delete", {"model": model}, timeout=ANSWER_SECONDS)

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
        return self._read(generated, "/api/generate", body)

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
        return self._read(chatted, "/api/chat", body)

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
        vectors = member(self._ask("POST", "/api/embed", body), "embeddings", list, [])
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
            self._do("HEAD", f"/api/blobs/{digest}", timeout=ANSWER_SECONDS)
        except NotFound:
            return False
        return True

    def add_blob(
        self, digest: "Digest", size: int, chunks: Iterable[bytes], progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Uploads a file; the server refuses it when its digest is another. `progress` gets the bytes sent so far."""
        headers = {"Content-Length": str(size)}
        with self._exchange("POST", f"/api/blobs/{digest}", _counted(chunks, progress), headers) as response:
            self._check(response)

    def _job(self, path: str, body: Mapping[str, Json]) -> Stream["Progress"]:
        """The steps of a long job. `CorralError` when the stream ends before the job says that it has succeeded."""
        status = ""
        with closing(self._read(progress, path, body)) as steps:
            for step in steps:
                status = step.status
                yield step
        if status != "success":
            raise CorralError(f"the {self.program} server ended its answer before the job was done")

    def _ask(
        self, method: str, path: str, body: Mapping[str, Json] | None = None, *, timeout: float | None = None
    ) -> dict[str, Json]:
        """The JSON object that a plain call answers with."""
        return self._decode(self._do(method, path, body, timeout=timeout))

    def _do(
        self, method: str, path: str, body: Mapping[str, Json] | None = None, *, timeout: float | None = None
    ) -> bytes:
        with self._exchange(method, path, _encode(body), timeout=timeout) as response:
            return self._body(response)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body of a plain answer; an error in it is raised."""
        self._check(response)
        data = response.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise CorralError(f"the {self.program} server's answer is larger than {MAX_ANSWER >> 20} MB")
        if response.length:
            raise http.client.IncompleteRead(data)
        return data

    def _read(self, read: Callable[[Mapping[str, Json]], T], path: str, body: Mapping[str, Json]) -> Stream[T]:
        with closing(self._lines(path, body)) as lines:
            for line in lines:
                yield read(line)

    def _lines(self, path: str, body: Mapping[str, Json]) -> Stream[dict[str, Json]]:
        """The objects of a streamed answer; the headers that describe it become members of the first.

        An error in it, before or after the first line, is raised.
        """
        headers = {"Accept": "application/x-ndjson"}
        with self._exchange("POST", path, _encode(body), headers) as response:
            self._check(response, streaming=True)
            described = {name: text for name in STREAM_HEADERS if (text := response.headers.get(name))}
            while line := response.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise CorralError(f"the {self.program} server sent a line of more than {MAX_LINE >> 20} MB")
                if not line.strip():
                    continue
                value = self._decode(line)
                if sentence := _sentence(value):
                    raise CorralError(sentence)
                yield value | described
                described = {}

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Sends a request and gives its response, which is closed with the block. Errors of the network, also while the
        response is read, become `CorralError`s."""
        connection = self._connection()
        response = None
        try:
            connection.connect()
            connection.sock.settimeout(timeout)
            connection.request(method, self.address.path + path, body, {**self._headers(), **(headers or {})})
            response = connection.getresponse()
            yield response
        except ConnectionRefusedError as error:
            raise NotRunning(
                f"could not connect to {self.program} server, run '{self.program} serve' to start it"
            ) from error
        except http.client.IncompleteRead as error:
            raise CorralError(f"the {self.program} server broke off its answer") from error
        except (http.client.InvalidURL, UnicodeError) as error:
            raise CorralError(f'invalid address "{self.address}"') from error
        except http.client.HTTPException as error:
            raise CorralError(f'what answers at "{self.address}" is no {self.program} server') from error
        except TimeoutError as error:
            waited = CONNECT_SECONDS if timeout is None else timeout
            raise CorralError(f'no answer from "{self.address}" within {waited:g} seconds') from error
        except OSError as error:
            raise CorralError(f'no answer from "{self.address}": {_reason(error)}') from error
        finally:
            if response is not None:
                response.close()
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {**_HEADERS, "Authorization": f"Bearer {self._key}"} if self._key else _HEADERS

    def _connection(self) -> http.client.HTTPConnection:
        if self.address.scheme not in ("http", "https"):
            raise CorralError(f'commands do not speak "{self.address.scheme}"; set OLLAMA_HOST to an http address')
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        return kind(self.address.to_connect, self.address.port, timeout=CONNECT_SECONDS)

    def _check(self, response: http.client.HTTPResponse, *, streaming: bool = False) -> None:
        """Raises what an answer of status 300 or above says (spec cli §1)."""
        status = response.status
        if status < 300:
            return
        if status < 400:
            target = response.headers.get("Location", "")
            raise CorralError(f'the server at "{self.address}" has moved to "{target}"; set OLLAMA_HOST to that')
        data = response.read(MAX_ERROR)
        if response.headers.get_content_type() == "text/html":  # another program, or a proxy that is in the way
            what = f"{status} {http.client.responses.get(status, response.reason)}"
            raise CorralError(f'what answers at "{self.address}" is no {self.program} server: it says {what}')
        if status == 401:
            raise KeyRefused(self.address, self._key != "")
        sentence = _error_of(data) or f"something went wrong, please see the {self.program} server logs for details"
        if streaming:
            sentence = f"{status} {http.client.responses.get(status, response.reason)}: {sentence}"
        raise _BY_STATUS.get(status, CorralError)(sentence)

    def _decode(self, data: bytes) -> dict[str, Json]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CorralError(f"the {self.program} server's answer is no JSON: {_excerpt(data)}") from error
        if not isinstance(value, dict):
            raise CorralError(f"the {self.program} server's answer is no JSON object: {_excerpt(data)}")
        return value


_HEADERS = {
    "User-Agent": f"corral/{__version__} ({PLATFORM}) Python/{sys.version_info.major}.{sys.version_info.minor}",
    "Content-Type": "application/json",
    "Accept": "application/json",
}
_BY_STATUS: dict[int, type[CorralError]] = {400: BadRequest, 403: Forbidden, 404: NotFound, 503: Busy}


def _counted(chunks: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(done)


def _encode(body: Mapping[str, Json] | None) -> bytes | None:
    # An argument that was no UTF-8 comes as lone surrogates, which no JSON text may carry.
    return None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


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


def _error_of(data: bytes) -> str:
    """The sentence of an error's body: its `error` member, or the text when it is no JSON object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return data.decode("utf-8", "replace").strip()[:2000]
    return _sentence(value)


def _sentence(value: Mapping[str, Json]) -> str:
    """What an answer's member `error` says, a text or an object with a `message`; empty where it has none."""
    error = value.get("error")
    if isinstance(error, dict):
        error = error.get("message") or json.dumps(error, ensure_ascii=False)
    return str(error or "")


def _excerpt(data: bytes) -> str:
    text = data[:60].decode("utf-8", "replace").strip()
    return f'"{text}{"…" if len(data) > 60 else ""}"'


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
