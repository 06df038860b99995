"""The terminal: whether it can show what models say."""

import locale
import sys
from collections.abc import Iterator

from corral.doctor.findings import Finding

SUBJECT = "Terminal"


def examine() -> Iterator[Finding]:
    """What is found here, judged."""
    stream = sys.stdout
    yield from judged(stream.encoding or "", locale.getpreferredencoding(False))


def judged(output: str, preferred: str) -> Iterator[Finding]:
    """The encodings of the output, and of files and arguments by the locale."""
    if _is_utf8(output) and _is_utf8(preferred):
        yield Finding(SUBJECT, "ok", "letters of every language are shown (UTF-8)")
        return
    other = preferred if _is_utf8(output) else output
    yield Finding(
        SUBJECT,
        "note",
        f"the encoding is {other or 'not known'}: letters that it does not have are shown as ?",
        "set LANG to a locale with UTF-8: `export LANG=C.UTF-8`",
    )


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "cp65001")
