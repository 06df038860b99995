"""Keys: what is kept of one, how one is made, and how one is recognised. The secret itself is kept nowhere."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence

from msgspec import Struct

from corral.access import patterns
from corral.access.scopes import SCOPES, Scope
from corral.errors import BadRequest

PREFIX = "corral-"
MAX_NAME = 64
MAX_PATTERNS = 64
MAX_PER_MINUTE = 10**9
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8}")


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key, as it is kept."""

    id: str
    """Eight hex digits, by which it is named in lists and in the audit log."""
    name: str
    """What its owner calls it."""
    sha256: str
    """The digest of its secret. That is 256 random bits, so it needs neither salt nor a slow function."""
    scope: Scope = "infer"
    models: tuple[str, ...] = ()
    """Patterns of the models it is for; none: all."""
    requests_per_minute: int = 0
    """Requests that ask a model; 0: no limit."""
    tokens_per_minute: int = 0
    """Tokens of prompts and answers; 0: no limit."""
    created: int
    """Seconds since the epoch."""


class Wish(Struct, frozen=True, kw_only=True):
    """A key as it is asked for."""

    name: str
    scope: str = "infer"
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


def make(wish: Wish) -> tuple[Key, str]:
    """A new key and its secret, which is to be shown once. `BadRequest` for a wish that cannot be granted."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(
        id=secrets.token_hex(4),
        name=wish.name,
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        scope=_scope(wish.scope),
        models=tuple(dict.fromkeys(pattern.strip() for pattern in wish.models)),
        requests_per_minute=wish.requests_per_minute,
        tokens_per_minute=wish.tokens_per_minute,
        created=int(time.time()),
    )
    check(key)
    return key, secret


def find(keys: Sequence[Key], secret: bytes) -> Key | None:
    """The key of a secret, as it came. All are compared, each in constant time, so that time tells nothing."""
    digest, found = hashlib.sha256(secret).hexdigest(), None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


def named(keys: Sequence[Key], text: str) -> Key | None:
    """The key of an id or a name."""
    return next((key for key in keys if text in (key.id, key.name)), None)


def check(key: Key) -> None:
    """`BadRequest` for a key that may not be, wherever it comes from."""
    if not _is_name(key.name):
        raise BadRequest(f'a key needs a name of 1 to {MAX_NAME} printable characters, got "{_shown(key.name)}"')
    if not (_ID.fullmatch(key.id) and _SHA256.fullmatch(key.sha256)):
        raise BadRequest(f'key "{key.name}" has an id or a digest that is none')
    if len(key.models) > MAX_PATTERNS:
        raise BadRequest(f"a key has at most {MAX_PATTERNS} patterns of models, got {len(key.models)}")
    for pattern in key.models:
        patterns.check(pattern)
    for what, number in (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute)):
        if not 0 <= number <= MAX_PER_MINUTE:
            raise BadRequest(f"{what} per minute must be a number from 0 to {MAX_PER_MINUTE}, got {number}")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable() and text == text.strip() and not text.startswith("-")


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_NAME])


def _scope(text: str) -> Scope:
    for scope in SCOPES:
        if text == scope:
            return scope
    raise BadRequest(f'"{_shown(text)}" is no scope: one of {", ".join(SCOPES)}')
