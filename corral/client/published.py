"""Models that a search has found, as `/api/search` says it. Loaded where a search is shown only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from corral.client.answers import Json, member, members, moment


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A model that can be pulled under `name`. `size` is in bytes; `fits` is `yes`, `tight` or `no`."""

    name: str
    level: str
    size: int
    memory: int
    """Bytes that it takes when it is loaded here."""
    fits: str


@dataclass(frozen=True, slots=True)
class Published:
    """A repository of models that a search has found; what the server does not know is empty, 0 or None."""

    name: str
    downloads: int
    gated: bool
    modified_at: datetime | None
    parameter_size: str
    context_length: int
    suggested: str
    """The name of the quantisation to begin with."""
    error: str
    quantisations: tuple[Quantisation, ...]


def published(value: Mapping[str, Json]) -> Published:
    """One entry of `/api/search`."""
    return Published(
        name=member(value, "name", str, ""),
        downloads=member(value, "downloads", int, 0),
        gated=member(value, "gated", bool, False),
        modified_at=moment(value, "modified_at") if value.get("modified_at") else None,
        parameter_size=member(value, "parameter_size", str, ""),
        context_length=member(value, "context_length", int, 0),
        suggested=member(value, "suggested", str, ""),
        error=member(value, "error", str, ""),
        quantisations=tuple(
            Quantisation(
                name=member(one, "name", str, ""),
                level=member(one, "quantization_level", str, ""),
                size=member(one, "size", int, 0),
                memory=member(member(one, "requirements", dict, {}), "total", int, 0),
                fits=member(one, "fits", str, ""),
            )
            for one in members(value, "quantizations")
        ),
    )
