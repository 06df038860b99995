"""Snowflake Arctic Embed 2: the table by which its tokenizer replaces characters, published as a text in base64.

Each character of the text is an element of an array; the engine reads bytes.
"""

import base64
import binascii
import struct

from corral.errors import ModelFileError
from corral.gguf import GGUF, Array, ValueType
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_TABLE = "tokenizer.ggml.precompiled_charsmap"
_LONGEST = 1 << 23
"""Characters; those of all normalisations of Unicode are 320,000."""


def _recognises(file: GGUF) -> bool:
    table = file.metadata.get(_TABLE)
    return file.text("tokenizer.ggml.model") == "t5" and isinstance(table, Array) and table.type is ValueType.STRING


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.put_array(_TABLE, ValueType.UINT8, _decoded(file))
    return Drafts(draft)


def _decoded(file: GGUF) -> bytes:
    table = file.metadata[_TABLE]
    assert isinstance(table, Array)
    if table.length > _LONGEST:
        raise ModelFileError(f'key "{_TABLE}" has {table.length} elements, more than {_LONGEST}')
    letters = [str(one) for one in file.values(_TABLE)]
    if any(len(letter) != 1 for letter in letters):
        raise ModelFileError(f'key "{_TABLE}" is an array of texts which are not one character each')
    text = "".join(letters).partition("=")[0]
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ModelFileError(f'key "{_TABLE}" is not base64') from error
    # Four bytes say how long the tree is that follows, of numbers of four bytes.
    if len(decoded) < 8 or not 4 <= (size := struct.unpack_from("<I", decoded)[0]) <= len(decoded) - 4 or size % 4:
        raise ModelFileError(f'key "{_TABLE}" is not a table of characters: it has {len(decoded)} bytes')
    return decoded


FAMILY = Family(name="arctic", version=1, architectures=("bert",), recognises=_recognises, derive=_derive)
