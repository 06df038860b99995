"""Pictures that OpenAI's requests name by their address: found, and replaced by the file. Source: spec api §17.2."""

import base64
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from corral.messages import Json
from corral.server.http.images import LinkedImage


def linked_images(contents: Iterable[Json]) -> Iterator[LinkedImage]:
    """Those in contents of messages, or of items of a response."""
    for content in contents:
        for part in content if isinstance(content, list) else ():
            match part:
                case {"type": "image_url", "image_url": {"url": str(url)} as place} if _is_address(url):
                    yield LinkedImage(url, partial(_put, place, "url"))
                case {"type": "image_url" | "input_image", "image_url": str(url)} if _is_address(url):
                    yield LinkedImage(url, partial(_put, part, "image_url"))


def _is_address(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _put(place: dict[str, Any], key: str, data: bytes) -> None:
    place[key] = f"data:;base64,{base64.b64encode(data).decode()}"
