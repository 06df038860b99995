"""Code in its colours: spans with the short class names of Pygments. The page's style sheet says which colours."""

from functools import lru_cache

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_CHARACTERS = 20_000
"""Characters of a block that gets colours. A longer one is shown without."""

_FORMATTER = HtmlFormatter(nowrap=True)


def highlighted(text: str, language: str, _: str) -> str:
    """The code as HTML; empty where the language is not known, which makes the caller show it plainly.

    The signature is that of markdown-it's option `highlight`.
    """
    lexer = _lexer(language.lower()[:40]) if language and len(text) <= MAX_CHARACTERS else None
    return highlight(text, lexer, _FORMATTER) if lexer else ""


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
