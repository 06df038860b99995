"""Pictures that Anthropic's requests name by their address: found, and replaced by the file. Source: spec api §20.1."""

import base64
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from corral.messages import Json
from corral.server.http.images import LinkedImage


def linked_images(contents: Iterable[Json]) -> Iterator[LinkedImage]:
    """Those in contents of messages, and in results of tools within them."""
    for content in contents:
        for block in content if isinstance(content, list) else ():
            match block:
                case {"type": "image", "source": {"type": "url", "url": str(url)}}:
                    yield LinkedImage(url, partial(_put, block))
                case {"type": "tool_result" | "web_search_tool_result", "content": list(inner)}:
                    yield from _images_of(inner)


def _images_of(blocks: list[Any]) -> Iterator[LinkedImage]:
    """A result holds no other results."""
    return linked_images([[block for block in blocks if isinstance(block, dict) and block.get("type") == "image"]])


def _put(block: dict[str, Any], data: bytes) -> None:
    block["source"] = {"type": "base64", "data": base64.b64encode(data).decode()}
