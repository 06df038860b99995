"""Stop words, found in an answer as it comes.

llama-server finds stop words too, but it drops text that may be the beginning of one when an answer ends at its limit.
Its chat does not even report the tokens of that text, so it gets no stop words there, and the client ends the answer.
Knows no wire format.
"""

from bisect import bisect_left
from collections.abc import Sequence


class StopWords:
    """Finds the first stop word in an answer. `word`: the one that was found; empty: none was."""

    def __init__(self, words: Sequence[str]) -> None:
        self._order = {word: place for place, word in reversed([*enumerate(words)])}
        self._sorted = sorted(self._order)
        self._lengths = sorted({len(word) for word in self._order})
        self._initials = {word[0] for word in self._order}
        self._kept = ""
        self.word = ""

    @property
    def keeps(self) -> bool:
        """Whether it keeps text back that may begin a stop word."""
        return bool(self._kept)

    def feed(self, text: str) -> str:
        """The text that has become certain: no stop word, nor the beginning of one."""
        known, text = len(self._kept), self._kept + text
        place = self._find(text, known)
        if place < 0:
            place = self._possible_beginning(text)
            self._kept = text[place:]
        return text[:place]

    def flush(self) -> str:
        """What was kept back until the answer ended."""
        kept, self._kept = self._kept, ""
        return "" if self.word else kept

    def _find(self, text: str, known: int) -> int:
        """Where the first stop word begins that ends behind the `known` characters; -1: nowhere."""
        found: list[tuple[int, int, str]] = []
        for length in self._lengths:
            if length > len(text):
                break
            for begin in range(max(0, known - length + 1), len(text) - length + 1):
                word = text[begin : begin + length]
                if word in self._order:
                    found.append((begin, self._order[word], word))
                    break
        if not found:
            return -1
        begin, _, self.word = min(found)
        return begin

    def _possible_beginning(self, text: str) -> int:
        """Where the first text begins that may become a stop word; the end of `text` where none does."""
        for begin in range(max(0, len(text) - self._lengths[-1] + 1), len(text)):
            if text[begin] in self._initials:
                rest = text[begin:]
                place = bisect_left(self._sorted, rest)
                if place < len(self._sorted) and self._sorted[place].startswith(rest):
                    return begin
        return len(text)
