"""Pictures and sound named in a prompt: found, read, checked, and taken out of the text. Source: spec cli §4.3."""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from corral.errors import BadRequest
from corral.media_kinds import SOUNDS, kind_of

MAX_BYTES = 100 << 20
KINDS = ("jpeg", "png", "webp", "wav")
"""What can be attached; a server may take more."""

# ASCII, so that Chinese letters may follow a name at once, and the blanks of other scripts stand in one, as in Go.
# No path is longer, and a long text without a blank would be searched for its end from every slash in it.
_PATH = re.compile(
    r"(?:[a-z]:|~|\.\.?)?[/\\](?:\\.|\S){1,4096}?\.(?:jpg|jpeg|png|webp|wav)\b", re.IGNORECASE | re.ASCII
)
_ESCAPE = re.compile(r"\\([ ()\[\]{}$&;'\\*?~])")


@dataclass(frozen=True, slots=True)
class Attached:
    """A prompt without the paths of its files, and the files' bytes and paths."""

    prompt: str
    files: tuple[bytes, ...]
    notes: tuple[str, ...]
    """What was added, a line each."""


def attach(prompt: str) -> Attached:
    """Takes the files that exist out of a prompt; the names of others stay. `BadRequest` for one that is unfit."""
    files, notes = [], []
    for match in _PATH.finditer(prompt):
        spelled = match[0]
        if (path := _file(spelled)) is None:
            continue
        data = _read(path)
        notes.append(f"Added {'audio' if kind_of(data) in SOUNDS else 'image'} '{path}'")
        files.append(data)
        prompt = prompt.replace(f"'{spelled}'", "").replace(spelled, "")
    return Attached(prompt.strip() if files else prompt, tuple(files), tuple(notes))


def begins_with_file(text: str) -> bool:
    """Whether a text begins with the path of a file that exists; whether it can be attached, `attach` says."""
    match = _PATH.match(text)
    try:
        return match is not None and _file(match[0]) is not None
    except BadRequest:
        return True


def _file(spelled: str) -> Path | None:
    """The file that is meant, when there is one."""
    path = Path(_ESCAPE.sub(r"\1", spelled))
    try:
        path = path.expanduser()
        return path if path.is_file() else None
    except RuntimeError:  # the home of a user that does not exist
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a long text may look like a path here and there
            return None
        raise BadRequest(f'cannot read "{path}": {error.strerror}') from error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadRequest("file size exceeds maximum limit (100MB)")
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(f'cannot read "{path}": {error.strerror}') from error
    if kind_of(data) not in KINDS:
        raise BadRequest(f'invalid file type: "{path}" is no JPEG, PNG, WebP or WAV file')
    return data
