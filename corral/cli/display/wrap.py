"""Words to lines, as they come: feed text bit by bit, print what comes back. Knows no terminal codes.

A word is held back until it is known to fit, so nothing ever has to be taken back from the screen. Wide characters
(Chinese, Japanese) may be broken between, but neither closing punctuation nor small kana begin a line, and an emoji
made of several code points stays whole. Korean has blanks between its words, and is broken there.
"""

from wcwidth import wcswidth, wcwidth

LEAST_WIDTH = 10
"""Terminals narrower than this get their text unwrapped."""
MARGIN = 5
"""Columns left free on the right, as the original does; punctuation may hang into them."""
TAB = 8

_JOINER = "\u200d"
_CLOSING = "、。，．：；！？）］｝〉》」』】〕〗’”…" + ".,:;!?)]}%"
_FOLLOWING = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶー々〜～・゛゜"
"""Belongs to the character before it (JIS X 4051)."""
_OPENING = "（［｛〈《「『【〔〖‘“" + "([{"


class Wrapper:
    """Wraps at `width` less the margin. A word longer than a line goes on unbroken; so do lines of its own."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._limit = width - MARGIN if width >= LEAST_WIDTH else 0
        self._column = 0
        self._gap = ""
        self._word = ""
        self._may_break = True

    def resize(self, width: int) -> None:
        """Goes on at another width. A terminal that was made narrower has broken the line that is being written."""
        self._width = width
        self._limit = width - MARGIN if width >= LEAST_WIDTH else 0
        self._column = self._in_last_row(self._column)

    def feed(self, text: str) -> str:
        """What is certain to be printed now."""
        return "".join(map(self._take, text)) if self._limit else self.flush() + text

    def flush(self) -> str:
        """The rest. The text may go on afterwards."""
        return self._place_word() + self._place_gap()

    def _take(self, rune: str) -> str:
        if rune == "\n":
            # Blanks at the end of a line are kept: two of them mean something in Markdown.
            out = self._place_word() + self._place_gap() + rune
            self._column, self._may_break = 0, True
            return out
        if rune in " \t":
            out = self._place_word()
            self._gap += rune
            self._may_break = True
            return out
        out = ""
        if self._word and self._begins_another(rune):
            out = self._place_word()
            self._may_break = True
        self._word += rune
        if len(self._word) > self._limit:
            out += self._place_word()
            self._may_break = False
        return out

    def _begins_another(self, rune: str) -> bool:
        """Whether a line may be broken between the held-back word and this character, without a blank there."""
        if rune.isascii() and self._word.isascii():
            return False
        last = self._word[-1]
        if (
            rune in _CLOSING
            or rune in _FOLLOWING
            or last in _OPENING
            or last == _JOINER
            or wcwidth(rune) <= 0
            or _is_skin_tone(rune)
        ):
            return False
        if _is_regional(rune) and _is_regional(last):
            return len(self._word) % 2 == 0
        if _is_hangul(rune):
            return _ends_wide(self._word) and not _is_hangul(last)
        return wcwidth(rune) == 2 or (_ends_wide(self._word) and not _is_hangul(last))

    def _place_word(self) -> str:
        if not self._word:
            return ""
        width = _columns(self._word)
        if self._may_break and self._column and self._column + self._gap_width() + width > self._limit:
            hanging = self._word[-1] in _CLOSING and self._column + self._gap_width() + width - 2 <= self._limit
            if not hanging:
                self._gap = ""
                out = "\n" + self._word
                self._word = ""
                self._column = self._in_last_row(width)
                return out
        out = self._place_gap() + self._word
        self._word = ""
        self._column = self._in_last_row(self._column + width)
        return out

    def _in_last_row(self, column: int) -> int:
        """The column where the cursor stands after a line of so many columns, which the terminal breaks at its edge."""
        return (column - 1) % self._width + 1 if column else 0

    def _place_gap(self) -> str:
        out, self._gap, self._column = self._gap, "", self._column + self._gap_width()
        return out

    def _gap_width(self) -> int:
        column = self._column
        for rune in self._gap:
            column += TAB - column % TAB if rune == "\t" else 1
        return column - self._column


def _columns(text: str) -> int:
    return len(text) if text.isascii() else max(0, wcswidth(text))


def _ends_wide(word: str) -> bool:
    """Whether its last visible character is a wide one."""
    for rune in reversed(word):
        if (width := wcwidth(rune)) > 0:
            return width == 2 or rune in _CLOSING
    return False


def _is_hangul(rune: str) -> bool:
    return "\uac00" <= rune <= "\ud7a3"


def _is_skin_tone(rune: str) -> bool:
    return "\U0001f3fb" <= rune <= "\U0001f3ff"


def _is_regional(rune: str) -> bool:
    return "\U0001f1e6" <= rune <= "\U0001f1ff"
