"""Files that stand as base64 in JSON. What they are is found by their first bytes."""

import base64
import binascii
import re
from collections.abc import Iterable

from corral.errors import BadRequest
from corral.messages import Media, media_of


def read_media(texts: Iterable[str]) -> tuple[Media, ...]:
    """Standard base64 with padding; line breaks inside are allowed, a data-URI prefix is not (spec api §1.1)."""
    return tuple(media_of(decode_base64(text)) for text in texts)


def decode_base64(text: str) -> bytes:
    stripped = text.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(stripped, validate=True)
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", stripped.rstrip("="))
        at = bad.start() if bad else len(stripped)
        raise BadRequest(f"illegal base64 data at input byte {at}") from None
