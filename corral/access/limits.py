"""How much a key may use a minute. A bucket holds a minute's worth and is refilled evenly."""

import time
from collections.abc import Callable, Collection

from corral.access.keys import Key


class Bucket:
    """What is left of so much a minute; less than nothing, where what was taken is only known afterwards.

    Moments are in seconds.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until there is one to take; 0: there is now."""
        return max(0.0, (1 - self._filled(now)) * 60 / self.per_minute)

    def take(self, amount: int, now: float) -> None:
        self._level, self._at = self._filled(now) - amount, now

    def _filled(self, now: float) -> float:
        return min(float(self.per_minute), self._level + (now - self._at) * self.per_minute / 60)


class Limits:
    """The buckets of all keys that have limits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def admit(self, key: Key) -> float:
        """Takes a request of this key on and returns 0; or returns the seconds after which one will be."""
        now = self._clock()
        requests = self._bucket("requests", key.id, key.requests_per_minute, now)
        tokens = self._bucket("tokens", key.id, key.tokens_per_minute, now)
        wait = max((bucket.wait(now) for bucket in (requests, tokens) if bucket is not None), default=0.0)
        if not wait and requests is not None:
            requests.take(1, now)
        return wait

    def spend(self, key: Key, tokens: int) -> None:
        """Counts tokens that a request of this key has taken."""
        now = self._clock()
        if bucket := self._bucket("tokens", key.id, key.tokens_per_minute, now):
            bucket.take(tokens, now)

    def keep(self, keys: Collection[Key]) -> None:
        """Forgets those of other keys."""
        ids = {key.id for key in keys}
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name[1] in ids}

    def _bucket(self, what: str, key_id: str, per_minute: int, now: float) -> Bucket | None:
        """None where there is no limit. A limit that was changed begins anew."""
        if not per_minute:
            return None
        bucket = self._buckets.get((what, key_id))
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[what, key_id] = Bucket(per_minute, now)
        return bucket
