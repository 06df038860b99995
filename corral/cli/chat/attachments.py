"""Files named in a prompt: found, read and checked. Pictures and sound are taken out of the text, texts put into it.

Source: spec cli §4.3.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.errors import BadRequest
from corral.media_kinds import SOUNDS, kind_of

MAX_BYTES = 100 << 20
MAX_TEXT_BYTES = 1 << 20
KINDS = ("jpeg", "png", "webp", "wav")
"""What can be attached; a server may take more."""
TEXTS = (
    "txt|text|md|markdown|rst|adoc|org|tex|csv|tsv|json|jsonl|ndjson|yaml|yml|toml|ini|cfg|conf|properties|env|"
    "log|xml|html|htm|css|scss|svg|sql|graphql|proto|diff|patch|sh|bash|zsh|fish|ps1|bat|cmd|py|pyi|ipynb|rb|"
    "pl|php|lua|r|jl|js|jsx|mjs|cjs|ts|tsx|vue|svelte|java|kt|kts|scala|groovy|gradle|c|h|cc|cpp|cxx|hh|hpp|cs|"
    "fs|go|rs|swift|m|mm|zig|nim|hs|ml|ex|exs|erl|clj|lisp|el|vim|asm|s|v|vhd|tf|nix|cmake|mk"
)
"""Endings of files that are put into a prompt as text, as a pattern."""

# ASCII, so that Chinese letters may follow a name at once, and the blanks of other scripts stand in one, as in Go.
# No path is longer, and a long text without a blank would be searched for its end from every slash in it.
_FLAGS = re.IGNORECASE | re.ASCII
_BEGIN = r"(?:[a-z]:|~|\.\.?)?[/\\]"
_ESCAPE = re.compile(r"\\([ ()\[\]{}$&;'\\*?~])")


def _pattern(endings: str) -> re.Pattern[str]:
    """A path with one of these endings: in quotes with any blanks, or bare, with blanks behind backslashes."""
    quoted = rf"""(?P<quote>['"])(?P<inner>{_BEGIN}[^'"\n]{{1,4096}}\.(?:{endings}))(?P=quote)"""
    return re.compile(rf"{quoted}|{_BEGIN}(?:\\.|\S){{1,4096}}?\.(?:{endings})\b", _FLAGS)


_MEDIA = _pattern("jpg|jpeg|png|webp|wav")
_TEXT = _pattern(TEXTS)


@dataclass(frozen=True, slots=True)
class Attached:
    """A prompt without the paths of its pictures and sounds, but with its texts; their bytes; what was done."""

    prompt: str
    files: tuple[bytes, ...]
    notes: tuple[str, ...]
    """What was added and what could not be, a line each."""


def attach(prompt: str, *, media: bool, typed: str | None = None) -> Attached:
    """Attaches the files that exist; the names of others stay. `BadRequest` for a picture or sound that is unfit.

    `media` is whether the model takes those. Texts are looked for in `typed` only, what the user wrote: a text that was
    piped in may name files that were not meant. A text that is unfit may only have been mentioned, and is a note.
    """
    texts, text_notes = _texts(prompt if typed is None else typed)
    rest, files, notes = _take_media(prompt) if media else (prompt, [], _media_left(prompt))
    return Attached(rest + "".join(texts), tuple(files), (*notes, *text_notes))


def begins_with_file(text: str, *, media: bool) -> bool:
    """Whether a text begins with the path of a file that exists; whether it can be attached, `attach` says."""
    patterns = (_MEDIA, _TEXT) if media else (_TEXT,)
    try:
        return any(match and _file(_spelled(match)) for match in (pattern.match(text) for pattern in patterns))
    except BadRequest:
        return True


def _take_media(prompt: str) -> tuple[str, list[bytes], list[str]]:
    """The prompt without the paths, the files' bytes, and what to say."""
    files: list[bytes] = []
    notes: list[str] = []
    rest = prompt
    for match in _MEDIA.finditer(prompt):
        spelled = _spelled(match)
        if (path := _file(spelled)) is None:
            notes += _missing(match)
            continue
        data = _read(path)
        notes.append(f"Added {'audio' if kind_of(data) in SOUNDS else 'image'} '{path}'")
        files.append(data)
        rest = rest.replace(match[0], "") if match["quote"] else rest.replace(f"'{spelled}'", "").replace(spelled, "")
    return rest.strip() if files else rest, files, notes


def _media_left(prompt: str) -> list[str]:
    return [
        f"'{path}' is not added: the model takes no pictures or sounds"
        for match in _MEDIA.finditer(prompt)
        if (path := _existing(_spelled(match)))
    ]


def _texts(typed: str) -> tuple[list[str], list[str]]:
    """The paragraphs to put behind a prompt, one for each file it names, and what to say."""
    paragraphs: list[str] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for match in _TEXT.finditer(typed):
        if not _begins_word(match):  # the end of an address, or of `and/or.md`
            continue
        if (path := _existing(_spelled(match))) is None:
            notes += _missing(match)
        elif path not in seen:
            seen.add(path)
            try:
                paragraphs.append(_paragraph(path))
                notes.append(f"Added text '{path}'")
            except BadRequest as error:
                notes.append(f"'{path}' is not added: {error}")
    return paragraphs, notes


def _paragraph(path: Path) -> str:
    """A file's text between lines of backticks, more of them than the text has itself."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"cannot read it: {error.strerror}") from error
    if len(data) > MAX_TEXT_BYTES:
        raise BadRequest(f"it is larger than {MAX_TEXT_BYTES >> 20} MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest("it is no UTF-8 text") from error
    if "\0" in text:
        raise BadRequest("it is no text")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"\n\n{path}:\n{fence}\n{text.rstrip()}\n{fence}"


def _missing(match: re.Match[str]) -> Iterator[str]:
    if _begins_word(match):
        yield f"no such file: '{_spelled(match)}'; the model reads the name only"


def _begins_word(match: re.Match[str]) -> bool:
    """Whether no other word goes over into it; Chinese letters may stand before a path, they are no part of one."""
    before = match.string[: match.start()][-1:]
    return not (before.isascii() and before.isalnum()) and before not in ("/", ".", ":", "~", "-", "_", "@")


def _spelled(match: re.Match[str]) -> str:
    return match["inner"] or match[0]


def _existing(spelled: str) -> Path | None:
    """The file that is meant, when there is one that can be looked at."""
    try:
        return _file(spelled)
    except BadRequest:
        return None


def _file(spelled: str) -> Path | None:
    """The file that is meant, when there is one. On Windows a backslash may be one."""
    for text in dict.fromkeys((_ESCAPE.sub(r"\1", spelled), spelled)):
        path = Path(text)
        try:
            path = path.expanduser()
            if path.is_file():
                return path
        except RuntimeError:  # the home of a user that does not exist
            continue
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # a long text may look like a path here and there
                continue
            raise BadRequest(f'cannot read "{path}": {error.strerror}') from error
    return None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadRequest(f'"{path}": file size exceeds maximum limit (100MB)')
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(f'cannot read "{path}": {error.strerror}') from error
    if kind_of(data) not in KINDS:
        raise BadRequest(f'invalid file type: "{path}" is no JPEG, PNG, WebP or WAV file')
    return data
