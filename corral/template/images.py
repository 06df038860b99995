"""Where pictures and sounds stand in a text: `[img-0]`, `[img-1]`, … (spec cli §15.4). Knows no picture."""

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from corral.messages import Message, Text


def number_images(messages: Sequence[Message]) -> list[Message]:
    """The messages with a tag for each picture and sound, numbered from 0 over all of them.

    A tag stands where its file stands between words, and in front of all words where its file stands behind them. The
    files themselves come behind the text.
    """
    numbers = itertools.count()
    return [_with_tags(message, numbers) if message.media else message for message in messages]


def _with_tags(message: Message, numbers: Iterator[int]) -> Message:
    words = [part if isinstance(part, Text) else Text(f"[img-{next(numbers)}]") for part in message.content]
    behind = next((number for number, part in enumerate(reversed(message.content)) if isinstance(part, Text)), 0)
    in_front = words[len(words) - behind :]
    return msgspec.structs.replace(message, content=(*in_front, *words[: len(words) - behind], *message.media))
