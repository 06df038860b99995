"""The last word on HTML before it leaves: elements and attributes that are known to be harmless, and nothing else."""

import nh3

_TEXT = "p br hr h1 h2 h3 h4 h5 h6 blockquote ul ol li pre code em strong s a span div input"
_TABLE = "table thead tbody tr th td"
_FORMULA = (
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd "
    "mpadded mphantom mstyle menclose mfenced"
)
_FORMULA_ATTRIBUTES = (
    "display mathvariant stretchy fence form separator lspace rspace minsize maxsize accent accentunder linethickness "
    "columnalign rowspacing columnspacing columnlines rowlines width height depth movablelimits displaystyle "
    "scriptlevel notation symmetric largeop"
)

_CLEANER = nh3.Cleaner(
    tags=set(f"{_TEXT} {_TABLE} {_FORMULA}".split()),
    clean_content_tags={"script", "style"},
    attributes={
        "a": {"href", "title"},
        "code": {"class"},
        "div": {"class"},
        "input": {"type", "checked", "disabled", "class"},
        "li": {"class"},
        "ol": {"start"},
        "span": {"class"},
        "td": {"align"},
        "th": {"align"},
        "ul": {"class"},
        **{name: set(_FORMULA_ATTRIBUTES.split()) for name in _FORMULA.split()},
    },
    url_schemes={"http", "https", "mailto"},
    link_rel="noopener noreferrer nofollow",
)


def cleaned(html: str) -> str:
    """The HTML without anything that could run, load, or send."""
    return _CLEANER.clean(html)
