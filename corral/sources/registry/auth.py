"""Who we are to a registry: its challenges, the user's docker credentials, tokens. Knows no model and no blob.

Rules: spec cli §9.1. Credentials go to the registry's own host and nowhere else, whatever realm it names.
"""

import asyncio
import base64
import binascii
import hashlib
import logging
import re
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import msgspec
from yarl import URL

from corral.errors import ConfigError, CorralError, SourceError, Unauthorized
from corral.sources.registry import keys
from corral.sources.registry.errors import StatusError
from corral.sources.registry.http import Http

logger = logging.getLogger(__name__)

_MAX_CONFIG_BYTES = 4 << 20
_MAX_TOKEN_BYTES = 1 << 20
_HELPER_SECONDS = 30.0
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?')
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_EMPTY_HASH = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a 401 offers; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str]

    def get(self, name: str) -> str:
        """A parameter, empty if the challenge has none of that name."""
        return self.parameters.get(name, "")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the user has for a registry: name and password, or a token that stands for them."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """To be exchanged for an access token at the realm."""
    registry_token: str = ""
    """To be sent as it is."""

    @property
    def basic(self) -> str:
        """The `Authorization` header with name and password."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(config_file: Path, host: str) -> Credentials | None:
    """What the docker configuration has for `host[:port]`. Blocking; `ConfigError` if the file cannot be used.

    The helper for all hosts may fail, without an error, when the file has no other entry for this one: then there was
    no login.
    """
    config = _read_docker_config(config_file)
    entries = {server: entry or {} for server, entry in (config.auths or {}).items() if _host_of(server) == host}
    helpers = {server: name for server, name in (config.helpers or {}).items() if name and _host_of(server) == host}
    if config.store and not helpers:
        try:
            if found := _ask_helper(config.store, host):
                return found
        except ConfigError as error:
            if entries:
                raise
            logger.warning("%s, so there are no credentials for %s", error, host)
    for server, helper in helpers.items():
        if found := _ask_helper(helper, server):
            return found
    for server, entry in entries.items():
        if found := _from_entry(config_file, server, entry):
            return found
    return None


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The `WWW-Authenticate` headers of an answer, in their order; what cannot be read is left out."""
    challenges: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        for match in _PARAMETER.finditer(header):
            word, quoted, plain = match.groups()
            if quoted is None and plain is None:
                challenges.append((word.lower(), {}))
            elif challenges:
                challenges[-1][1].setdefault(word.lower(), quoted if quoted is not None else plain)
    return [Challenge(scheme, parameters) for scheme, parameters in challenges]


class Authenticator:
    """Keeps the `Authorization` header that a registry accepts from us, and gets a new one when it asks."""

    def __init__(self, http: Http, *, docker_config: Path, key_folder: Path) -> None:
        self._http = http
        self._docker_config = docker_config
        self._key_folder = key_folder
        self._lock = asyncio.Lock()
        self.header = ""
        self._answered: Sequence[Challenge] = ()
        """What `header` answers. A registry may want another for each blob that it is to take from another model."""

    async def answer(self, challenges: Sequence[Challenge], refused: str) -> None:
        """Sets `header` anew. `refused` is the header the server did not take, "" for none.

        `Unauthorized` when there are no (more) credentials, `SourceError` when the challenge makes no sense.
        """
        async with self._lock:
            if self.header != refused and self._answered == challenges:  # another request has just brought a new one
                return
            self.header, self._answered = "", challenges
            credentials = await asyncio.to_thread(find_credentials, self._docker_config, self._host)
            for challenge in challenges:
                if challenge.scheme == "bearer":
                    self.header = f"Bearer {await self._token(challenge, credentials)}"
                    return
                if challenge.scheme == "basic" and credentials and not refused.startswith("Basic "):
                    self.header = credentials.basic
                    return
            hint = "" if credentials else f'\nno credentials for "{self._host}" in "{self._docker_config}"'
            raise Unauthorized(f"unauthorized: access denied{hint}")

    @property
    def _host(self) -> str:
        return self._http.origin.host_port_subcomponent or ""

    async def _token(self, challenge: Challenge, credentials: Credentials | None) -> str:
        if credentials and credentials.registry_token:
            return credentials.registry_token
        realm = self._realm(challenge)
        if credentials and credentials.identity_token:
            return await self._exchange(realm, challenge, credentials.identity_token)
        url = _with_query(realm, _token_query(challenge))
        if credentials:
            return await self._ask(url, {"Authorization": credentials.basic})
        try:
            return await self._ask_signed(realm, challenge)
        except (StatusError, Unauthorized):
            try:  # a plain token service does not know our key, and may give out tokens without one
                return await self._ask(url, {})
            except CorralError:
                pass
            raise

    def _realm(self, challenge: Challenge) -> URL:
        try:
            realm = URL(challenge.get("realm"))
            host = realm.host_port_subcomponent
        except ValueError:
            realm, host = URL(), None
        if realm.scheme not in ("http", "https") or not host:
            raise SourceError(f'invalid realm "{challenge.get("realm")[:200]}"')
        if host.lower() != self._host.lower():
            raise Unauthorized(f'realm host "{host}" does not match original host "{self._host}"')
        if realm.scheme == "http" and self._http.origin.scheme == "https":
            raise Unauthorized(f'realm "{realm}" is not encrypted')
        return realm.with_user(None).with_fragment(None)

    async def _ask_signed(self, realm: URL, challenge: Challenge) -> str:
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        url = _with_query(realm, [*_token_query(challenge), ("ts", str(int(time.time()))), ("nonce", nonce)])
        key = await asyncio.to_thread(keys.load_or_create, self._key_folder)
        signature = key.authorization(f"GET,{url},{_EMPTY_HASH}".encode())
        return await self._ask(url, {"Authorization": signature})

    async def _ask(self, url: URL, headers: Mapping[str, str]) -> str:
        return _read_token(*await self._fetch("GET", url, headers, None))

    async def _exchange(self, realm: URL, challenge: Challenge, identity_token: str) -> str:
        form = {
            "grant_type": "refresh_token",
            "service": challenge.get("service"),
            "scope": challenge.get("scope"),
            "client_id": "corral",
            "refresh_token": identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return _read_token(*await self._fetch("POST", realm, headers, urlencode(form).encode()))

    async def _fetch(self, method: str, url: URL, headers: Mapping[str, str], data: bytes | None) -> tuple[int, bytes]:
        response, body = await self._http.fetch(method, url, limit=_MAX_TOKEN_BYTES, headers=headers, data=data)
        return response.status, body


class _DockerConfig(msgspec.Struct, rename={"store": "credsStore", "helpers": "credHelpers"}):
    """What concerns us of the file; null stands for nothing."""

    auths: dict[str, dict[str, object] | None] | None = None
    store: str | None = None
    helpers: dict[str, str | None] | None = None


class _HelperReply(msgspec.Struct, rename={"username": "Username", "secret": "Secret"}):
    username: str
    secret: str


class _TokenReply(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None


def _read_token(status: int, body: bytes) -> str:
    """The token in a token service's answer; an error has the answer's text."""
    if status >= 300:
        text = body[:4096].decode("utf-8", "replace").strip()
        if status in (401, 403):
            raise Unauthorized(f"{status}: {text}")
        raise StatusError(status, text)
    try:
        reply = msgspec.json.decode(body, type=_TokenReply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError("the token service did not answer with a token") from error
    token = reply.token or reply.access_token or ""
    if not token or not token.isascii() or not token.isprintable():
        raise SourceError("the token service did not answer with a token")
    return token


def _token_query(challenge: Challenge) -> list[tuple[str, str]]:
    scopes = [("scope", scope) for scope in challenge.get("scope").split()]
    return [("service", challenge.get("service")), *scopes]


def _with_query(realm: URL, pairs: list[tuple[str, str]]) -> URL:
    """The realm's own query and `pairs`, sorted by key: what is signed is exactly what is sent."""
    present = parse_qsl(realm.raw_query_string, keep_blank_values=True)
    query = urlencode(sorted([*present, *pairs], key=lambda pair: pair[0]))
    return URL(f"{realm.with_query(None)}?{query}", encoded=True)


def _read_docker_config(path: Path) -> _DockerConfig:
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_CONFIG_BYTES)
        return msgspec.json.decode(text or b"{}", type=_DockerConfig)
    except (FileNotFoundError, NotADirectoryError):
        return _DockerConfig()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'cannot read "{path}": {error}') from error


def _host_of(server: str) -> str:
    """`https://host:port/v1/` and its like, as docker writes them, down to `host:port`."""
    return server.rpartition("://")[2].partition("/")[0].lower()


def _from_entry(path: Path, server: str, entry: Mapping[str, object]) -> Credentials | None:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if auth := text("auth"):
        try:
            bare = auth.strip().rstrip("=")
            padded = bare + "=" * (-len(bare) % 4)  # not all who write it pad it
            username, _, password = base64.b64decode(padded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ConfigError(f'"{path}" has an "auth" for "{server}" that is no base64') from error
    found = Credentials(username, password.rstrip("\0"), text("identitytoken"), text("registrytoken"))
    return None if found == Credentials() else found


def _ask_helper(helper: str, server: str) -> Credentials | None:
    """What `docker-credential-<helper> get` says; None when it knows nothing of the server."""
    if not _HELPER.match(helper):
        raise ConfigError(f'invalid credential helper "{helper}"')
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f'the credential helper "{program}" failed: {error}') from error
    if done.returncode:
        return None
    try:
        reply = msgspec.json.decode(done.stdout, type=_HelperReply)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'the credential helper "{program}" did not answer with JSON') from error
    if reply.username == "<token>":
        return Credentials(identity_token=reply.secret)
    return Credentials(reply.username, reply.secret)
