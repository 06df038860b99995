"""How long the answers of a loaded model usually are: what a request that leaves that open reserves at first."""

from collections import deque

REMEMBERED = 64
"""Answers by which it is told."""

PART = 0.8
"""The part of answers that need no more than what is usual."""

LEAST, STEP = 128, 64
"""The least that is reserved for an answer, in tokens, and what it is rounded up to."""

LEAST_KNOWN = 8
"""Answers below which the share of a slot is taken instead."""


class UsualLength:
    """Of a pool with `tokens` tokens for `slots` requests; never more than twice a slot's share of them."""

    def __init__(self, tokens: int, slots: int) -> None:
        self._share = max(LEAST, tokens // max(1, slots))
        self._lengths: deque[int] = deque(maxlen=REMEMBERED)
        self.tokens = self._share
        """Tokens to reserve for an answer."""

    def add(self, tokens: int) -> None:
        """An answer that was not limited otherwise has ended with so many."""
        self._lengths.append(tokens)
        if len(self._lengths) >= LEAST_KNOWN:
            usual = sorted(self._lengths)[int((len(self._lengths) - 1) * PART)]
            self.tokens = max(LEAST, min(-(-usual // STEP) * STEP, 2 * self._share))
