"""Whether a request may pass, decided for the route that it has met, before its body is read; lines of the audit log.

A key comes as `Authorization: Bearer KEY` or `x-api-key: KEY`. Where none is needed, one that is not known counts for
nothing, since clients of Ollama's send some word in its place; one that is known counts with its scope and its limits.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence

from starlette.types import Scope as Connection

from corral import telemetry
from corral.access import own_key
from corral.access.audit import AuditLog, Entry, Outcome
from corral.access.caller import Caller
from corral.access.file import KeyFile
from corral.access.keys import Key, Wish, find
from corral.access.limits import Limits
from corral.errors import ConfigError, CorralError, Forbidden, KeyRequired, LimitReached
from corral.server.http.needs import Needs

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds after which the file of keys is looked at again, at the next request with a key."""
MOST_SENT, LONGEST = 4, 256
"""Keys of one request that are looked at, and the bytes one may have."""
MAX_PATH = 200
"""Characters of a path that the audit log gets."""

_CALLER = "corral.caller"
_READING = ("GET", "HEAD", "OPTIONS")


class Access:
    """The keys of a running server. `is_needed`: whether a request must have one."""

    def __init__(self, file: KeyFile, audit: AuditLog, *, is_needed: bool, is_local: bool) -> None:
        """`is_local`: whether only this machine can reach the server. `ConfigError` for a file that cannot be used."""
        self.file = file
        self.is_needed = is_needed
        self.is_local = is_local
        self._audit = audit
        self._limits = Limits()
        self._stamp = file.stamp()
        self._keys = file.read()
        self._next_look = time.monotonic() + LOOK_EVERY

    async def admit(self, scope: Connection, needs: Needs) -> Caller:
        """The sender of a request that may pass; else `KeyRequired`, `ScopeMissing` or `LimitReached`."""
        key = await self._key_of(scope)
        if key is None:
            if self.is_needed and needs.scope is not None:
                raise KeyRequired
            caller = Caller()
        else:
            caller = Caller(key, lambda tokens: self._limits.spend(key, tokens))
        scope[_CALLER] = caller
        if key is not None and needs.scope is not None:
            caller.require(needs.scope)
            if needs.asks_model and (wait := self._limits.admit(key)):
                raise LimitReached(wait)
        return caller

    async def keys(self) -> Sequence[Key]:
        """All keys, as they are on disk now."""
        await self._look()
        return self._keys

    async def add(self, wish: Wish) -> tuple[Key, str]:
        """A new key and its secret. Errors as `KeyFile.add`."""
        made = await asyncio.to_thread(self.file.add, wish)
        await self._look()
        return made

    async def revoke(self, text: str) -> Key:
        """Takes out the key of an id or a name. Errors as `KeyFile.revoke`."""
        gone = await asyncio.to_thread(self.file.revoke, text)
        await asyncio.to_thread(own_key.forget, self.file.path.parent, gone.sha256)
        await self._look()
        return gone

    def record(self, scope: Connection, needs: Needs, outcome: Outcome, error: CorralError | None) -> None:
        """Writes a line into the audit log, if the request was to change what others see."""
        caller = caller_of(scope)
        if caller is None:  # nobody knows who that was; the log of requests has it
            return
        manages = needs.scope in ("manage", "admin") and scope["method"] not in _READING
        if not (manages or caller.action):
            return
        client = scope.get("client")
        self._audit.add(
            Entry(
                who=caller.owner or ("local" if self.is_local else "anyone"),
                key_name=caller.key.name if caller.key else "",
                address=client[0] if client else "",
                action=caller.action or f"{scope['method']} {scope['path'][:MAX_PATH]}",
                models=caller.models,
                key=scope.get(_SUBJECT, ""),
                outcome=outcome,
                error=error.kind if error else "",
                request=telemetry.request_id.get(),
            )
        )

    def close(self) -> None:
        """Returns when the audit log is written. Blocks."""
        self._audit.close()

    async def _key_of(self, scope: Connection) -> Key | None:
        secrets = [secret for secret in _sent(scope) if len(secret) <= LONGEST]
        if not secrets:
            return None
        is_time = time.monotonic() >= self._next_look
        found = None if is_time else self._found(secrets)
        if found is None:  # it may have been made, or revoked, a moment ago
            self._next_look = time.monotonic() + LOOK_EVERY
            await self._look()
            found = self._found(secrets)
        return found

    def _found(self, secrets: Sequence[bytes]) -> Key | None:
        found = (find(self._keys, secret) for secret in secrets[:MOST_SENT])
        return next((key for key in found if key is not None), None)

    async def _look(self) -> None:
        """Reads the file if it has changed. One that cannot be used any more leaves the keys as they were."""
        try:
            stamp = await asyncio.to_thread(self.file.stamp)
            if stamp != self._stamp:
                self._keys = await asyncio.to_thread(self.file.read)
                self._stamp = stamp
                self._limits.keep(self._keys)
        except ConfigError as error:
            log.error("%s; the keys of before still count", error)


_SUBJECT = "corral.subject"


def set_subject(scope: Connection, key: Key) -> None:
    """Says which key a request made or revoked."""
    scope[_SUBJECT] = key.id


def caller_of(scope: Connection) -> Caller | None:
    """The sender of a request; None before it was admitted, and when it was not known."""
    caller: Caller | None = scope.get(_CALLER)
    return caller


def access_of(scope: Connection) -> Access:
    access: Access = scope["app"].state.access
    return access


def outcome_of(error: CorralError | None, *, has_left: bool) -> Outcome:
    """What the audit log says of how a request ended."""
    if isinstance(error, Forbidden | LimitReached):
        return "refused"
    return "failed" if error else "left" if has_left else "done"


def _sent(scope: Connection) -> Iterator[bytes]:
    """The keys that a request has, whatever they are."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield rest.strip()
        elif name == b"x-api-key":
            yield value.strip()
