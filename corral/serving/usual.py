"""How long the answers of a loaded model usually are: what a request that leaves that open reserves at first."""

from collections import deque

REMEMBERED = 64
"""Answers that count, the last ones."""

PART = 0.8
"""The part of answers that need no more than what is usual."""

LEAST, STEP = 128, 64
"""The least that is reserved for an answer, in tokens, and what it is rounded up to."""

LEAST_KNOWN = 8
"""Answers that must have ended before anything is known to be usual."""


class UsualLength:
    """Of a pool that has `share` tokens for each of its slots."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._lengths: deque[int] = deque(maxlen=REMEMBERED)
        self._usual = share

    def add(self, tokens: int) -> None:
        """An answer that ended by itself had so many."""
        self._lengths.append(tokens)
        if len(self._lengths) >= LEAST_KNOWN:
            usual = sorted(self._lengths)[int((len(self._lengths) - 1) * PART)]
            self._usual = -(-usual // STEP) * STEP

    def behind(self, prompt: int) -> int:
        """Tokens to reserve for an answer to a prompt of so many: what is usual, but no more than is left of a slot's
        share, so that with short prompts there is room for a request in every slot."""
        return max(LEAST, min(self._usual, self._share - prompt))
