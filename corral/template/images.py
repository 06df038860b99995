"""Where pictures and sounds stand in a text: `[img-0]`, `[img-1]`, … (spec cli §15.4). Knows no picture."""

import re
from collections.abc import Sequence

import msgspec

from corral.messages import Message


def number_images(messages: Sequence[Message]) -> list[Message]:
    """The messages with a tag for each image in their content, numbered from 0 over all of them.

    An image takes the place of the next `[img]` in its message, or stands in front of the text.
    """
    numbered: list[Message] = []
    first = 0
    for message in messages:
        count = len(message.images)
        content = _with_tags(message.content, range(first, first + count))
        numbered.append(msgspec.structs.replace(message, content=content) if count else message)
        first += count
    return numbered


def _with_tags(content: str, numbers: range) -> str:
    tags = [f"[img-{number}]" for number in numbers]
    places = content.count("[img]")
    placed = iter(tags[:places])
    return "".join(tags[places:]) + re.sub(r"\[img\]", lambda match: next(placed, match[0]), content)
