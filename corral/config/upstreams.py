"""Which other servers answer for which models, as `corral.toml` says it. Only the file can: a variable has no room.

[models."qwen3-32b"]
upstreams = [{url = "http://10.0.0.5:8000/v1", key_file = "~/qwen.key", model = "Qwen/Qwen3-32B", weight = 2}]
spill = "local-first"
capabilities = ["completion", "tools", "vision"]
"""

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from corral.config.address import address_and_port
from corral.config.values import parse_path
from corral.errors import BadRequest, ConfigError

MAX_UPSTREAMS = 64
"""Servers behind one name."""

MAX_WEIGHT = 1000.0

CAPABILITIES = ("completion", "tools", "vision", "audio", "thinking", "embedding")
"""What a model of another server may be able to do, in the order in which it is shown."""

_LETTERS = frozenset(string.ascii_letters + string.digits + "-._~%/")
"""What a path may hold here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Another server that answers for a model, by OpenAI's API below `url`."""

    url: str
    """`http[s]://host:port`, or with a path, without `/v1` and without a slash at its end."""
    key_file: Path | None = None
    """The file of the key that it wants; None: it wants none."""
    model: str = ""
    """What it calls the model; empty: as it is called here."""
    weight: float = 1.0
    """How much of the work it is to get beside the others."""

    @property
    def name(self) -> str:
        """As headers, logs and metrics name it: where it is reached, without the scheme."""
        return self.url.partition("://")[2]

    def __str__(self) -> str:
        named = f" as {self.model}" if self.model else ""
        return self.url + named + (f" (weight {self.weight:g})" if self.weight != 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBy:
    """The servers that answer for one model, and whether they do so before or after this machine."""

    upstreams: tuple[Upstream, ...] = field(default=())
    spill: Literal["local-first", "remote-first"] = "local-first"
    """Which are asked first, where the model is also in the store; the others get what those have no room for."""
    capabilities: tuple[str, ...] = ()
    """What the model can do, in the order of `CAPABILITIES`; empty: what the servers say."""

    def __str__(self) -> str:
        can = f"; {', '.join(self.capabilities)}" if self.capabilities else ""
        return f"{', '.join(map(str, self.upstreams))}; {self.spill}{can}"


def served_by(file: Path, table: Mapping[str, Any]) -> dict[str, ServedBy]:
    """The table `models` of the file. `ConfigError` with the value that cannot be used."""
    from corral import names  # few have such a table, and every quick command reads the settings

    found: dict[str, ServedBy] = {}
    for text, value in table.items():
        try:
            name = str(names.parse(text).folded)
            if name in found:
                raise BadRequest("the model is named twice; upper and lower case are the same")
            found[name] = _served_by(value)
        except BadRequest as error:
            raise ConfigError(f'"{file}": models."{text}": {error}') from None
    return found


def _served_by(value: Any) -> ServedBy:
    if not isinstance(value, dict):
        raise BadRequest(f"{_shown(value)} is no table; it must have `upstreams = [{{url = …}}]`")
    _require_known(value, ("upstreams", "spill", "capabilities"))
    spill, listed = value.get("spill", "local-first"), value.get("upstreams")
    if spill not in ("local-first", "remote-first"):
        raise BadRequest(f'spill: {_shown(spill)} is neither "local-first" nor "remote-first"')
    if not isinstance(listed, list) or not listed:
        raise BadRequest(f"upstreams: {_shown(listed)} is no list of tables such as {{url = …}}")
    if len(listed) > MAX_UPSTREAMS:
        raise BadRequest(f"upstreams: {len(listed)} servers are more than {MAX_UPSTREAMS}")
    upstreams = tuple(_upstream(one) for one in listed)
    names = [upstream.name for upstream in upstreams]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadRequest(f'upstreams: "{twice}" is there twice')
    return ServedBy(upstreams=upstreams, spill=spill, capabilities=_capabilities(value.get("capabilities")))


def _capabilities(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        raise BadRequest(f'capabilities: {_shown(value)} is no list of words such as ["completion", "tools"]')
    wrong = next((one for one in value if one not in CAPABILITIES), None)
    if wrong is not None:
        raise BadRequest(f"capabilities: {_shown(wrong)} is none; there are {', '.join(CAPABILITIES)}")
    return tuple(one for one in CAPABILITIES if one in value)


def _upstream(value: Any) -> Upstream:
    if not isinstance(value, dict):
        raise BadRequest(f"upstreams: {_shown(value)} is no table such as {{url = …}}")
    _require_known(value, ("url", "key_file", "model", "weight"))
    weight = value.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        raise BadRequest(f"weight: {_shown(weight)} is no number above 0, and at most {MAX_WEIGHT:g}")
    model, key_file = value.get("model", ""), value.get("key_file", "")
    if not (isinstance(model, str) and model.isprintable() and len(model) <= 512):
        raise BadRequest(f"model: {_shown(model)} is no name of a model")
    return Upstream(url=_url(value.get("url")), key_file=_path(key_file), model=model, weight=float(weight))


def _require_known(value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    wrong = next((name for name in value if name not in known), None)
    if wrong is not None:
        raise BadRequest(f'"{wrong}" means nothing here; there are {", ".join(known)}')


def _url(value: Any) -> str:
    if not isinstance(value, str) or not value.lower().startswith(("http://", "https://")):
        raise BadRequest(f"url: {_shown(value)} is no address; it must look like http://host:port/v1")
    address, bad_port = address_and_port(value)
    if not value.isascii() or bad_port or not address.host or address.is_port_only or not set(address.path) <= _LETTERS:
        raise BadRequest(f"url: {_shown(value)} is no address; it must look like http://host:port/v1")
    return f"{address.scheme}://{address.netloc}{address.path.removesuffix('/v1')}"


def _path(value: Any) -> Path | None:
    if value == "":
        return None
    try:
        if isinstance(value, str) and value.isprintable():
            return parse_path(value)
    except ValueError:
        pass
    raise BadRequest(f"key_file: {_shown(value)} names no file")


def _shown(value: Any) -> str:
    """A value as an error quotes it, never too much of it."""
    if value is None:
        return "nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return f'"{value}"'
    return f'"{str(value)[:200]}"'
