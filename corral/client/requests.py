"""One request to our own server and its answer, as bytes, objects or a stream of objects.

Whatever answers is taken to be hostile: lines and bodies are bounded, and what goes wrong becomes a sentence.
"""

import http.client
import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeAlias, TypeVar

from corral import __version__
from corral.client.answers import STREAM_HEADERS, Json
from corral.config.address import Address
from corral.errors import BadRequest, Busy, CorralError, Forbidden, NotFound
from corral.system.current import PLATFORM

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

_HEADERS = {
    "User-Agent": f"corral/{__version__} ({PLATFORM}) Python/{sys.version_info.major}.{sys.version_info.minor}",
    "Content-Type": "application/json",
    "Accept": "application/json",
}
_BY_STATUS: dict[int, type[CorralError]] = {400: BadRequest, 403: Forbidden, 404: NotFound, 503: Busy}


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


class Requests:
    """Sends requests to the server at `address`; every one is a connection of its own. `Client` says what is raised."""

    def __init__(self, address: Address, program: str, key: str) -> None:
        self.address = address
        self.program = program
        self._key = key

    def ask(
        self, method: str, path: str, body: Mapping[str, Json] | None = None, *, timeout: float | None = None
    ) -> dict[str, Json]:
        """The JSON object that a plain call answers with."""
        return self.decode(self.do(method, path, body, timeout=timeout))

    def do(
        self, method: str, path: str, body: Mapping[str, Json] | None = None, *, timeout: float | None = None
    ) -> bytes:
        """The whole body of a plain call's answer."""
        with self.exchange(method, path, _encode(body), timeout=timeout) as response:
            return self.body(response)

    def body(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body of a plain answer; an error in it is raised."""
        self.check(response)
        data = response.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise CorralError(f"the {self.program} server's answer is larger than {MAX_ANSWER >> 20} MB")
        if response.length:
            raise http.client.IncompleteRead(data)
        return data

    def read(self, read: Callable[[Mapping[str, Json]], T], path: str, body: Mapping[str, Json]) -> Stream[T]:
        """A streamed answer, each line as the value that `read` makes of it."""
        with closing(self.lines(path, body)) as lines:
            for line in lines:
                yield read(line)

    def lines(self, path: str, body: Mapping[str, Json]) -> Stream[dict[str, Json]]:
        """The objects of a streamed answer; the headers that describe it become members of the first.

        An error in it, before or after the first line, is raised.
        """
        headers = {"Accept": "application/x-ndjson"}
        with self.exchange("POST", path, _encode(body), headers) as response:
            self.check(response, streaming=True)
            described = {name: text for name in STREAM_HEADERS if (text := response.headers.get(name))}
            while line := response.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise CorralError(f"the {self.program} server sent a line of more than {MAX_LINE >> 20} MB")
                if not line.strip():
                    continue
                value = self.decode(line)
                if sentence := _sentence(value):
                    raise CorralError(sentence)
                yield value | described
                described = {}

    @contextmanager
    def exchange(
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

    def check(self, response: http.client.HTTPResponse, *, streaming: bool = False) -> None:
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

    def decode(self, data: bytes) -> dict[str, Json]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CorralError(f"the {self.program} server's answer is no JSON: {_excerpt(data)}") from error
        if not isinstance(value, dict):
            raise CorralError(f"the {self.program} server's answer is no JSON object: {_excerpt(data)}")
        return value


def _encode(body: Mapping[str, Json] | None) -> bytes | None:
    # An argument that was no UTF-8 comes as lone surrogates, which no JSON text may carry.
    return None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


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
