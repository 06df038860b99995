"""Which beginnings of prompts a replica has seen: hashes of blocks, each of which depends on those before it.

Two prompts that begin alike share the first hashes of their chains. Nothing of a text is kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from corral.messages import ChatRequest, GenerateRequest, Message, Picture, Sound, Text

BLOCK = 256
"""Bytes of a block, some 64 tokens."""

MAX_BLOCKS = 4096
"""Blocks of one prompt that are looked at."""

KEPT = 16384
"""Hashes that are kept for one replica: those not used for longest go first."""

BYTES_PER_TOKEN = 4
"""An estimate, for texts that are not tokenized here."""

LARGE = 1 << 18
"""Bytes of a request that is hashed or written in a thread: more than a millisecond's work."""

Chain: TypeAlias = tuple[int, ...]
"""The hashes of a prompt's whole blocks, from its beginning."""


def chain(prompt: bytes) -> Chain:
    """The hashes of a prompt's blocks; what is left behind the last whole block has none."""
    hashes: list[int] = []
    before = b""
    for start in range(0, min(len(prompt), BLOCK * MAX_BLOCKS) - BLOCK + 1, BLOCK):
        before = hashlib.blake2b(prompt[start : start + BLOCK], digest_size=8, key=before).digest()
        hashes.append(int.from_bytes(before, "little"))
    return tuple(hashes)


def prompt_bytes(request: ChatRequest | GenerateRequest) -> bytes:
    """What a request's prompt is made of, in the order in which templates write it.

    Stands for the rendered prompt where another server renders it: two requests begin alike here if they do there.
    """
    if isinstance(request, GenerateRequest):
        media = b"".join(hashlib.sha256(one.data).digest() for one in request.media)
        return b"\0".join((request.system.encode(), media, request.prompt.encode()))
    tools = [f"{tool.name}\0{tool.description}\0{tool.parameters}".encode() for tool in request.tools]
    return b"\1".join((*tools, *(_message_bytes(message) for message in request.messages)))


def size_of(request: ChatRequest | GenerateRequest) -> int:
    """About how many bytes it has."""
    if isinstance(request, GenerateRequest):
        return len(request.prompt) + sum(len(one.data) for one in request.media)
    texts = sum(len(message.text) for message in request.messages)
    return texts + sum(len(one.data) for message in request.messages for one in message.media)


def _message_bytes(message: Message) -> bytes:
    parts = [_part_bytes(part) for part in message.content]
    calls = [f"{call.name}{call.arguments}".encode() for call in message.tool_calls]
    return b"\0".join((message.role.encode(), message.thinking.encode(), *parts, *calls))


def _part_bytes(part: Text | Picture | Sound) -> bytes:
    return part.text.encode() if isinstance(part, Text) else hashlib.sha256(part.data).digest()


class Prefixes:
    """The beginnings that one replica was given lately."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._hashes: OrderedDict[int, None] = OrderedDict()

    def add(self, seen: Sequence[int]) -> None:
        """Notes a chain; its first blocks are forgotten last."""
        for block in reversed(seen):
            self._hashes[block] = None
            self._hashes.move_to_end(block)
        while len(self._hashes) > self._kept:
            self._hashes.popitem(last=False)

    def known(self, wanted: Sequence[int]) -> int:
        """How many blocks from the beginning of a chain were seen."""
        if not wanted or wanted[0] not in self._hashes:  # as for most of many replicas
            return 0
        for count, block in enumerate(wanted):
            if block not in self._hashes:
                return count
        return len(wanted)

    def clear(self) -> None:
        """Forgets all, as when the replica has lost its cache."""
        self._hashes.clear()
