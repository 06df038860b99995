"""How settings are read from text. A parser raises `ValueError` or `BadRequest` for a text that it cannot read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from corral.config.address import Address, address_and_port, parse_address, without_password
from corral.golang import durations

FOREVER = "forever"
"""How a duration without end is written."""

MAX_PARALLEL = 256
"""Sequences that llama.cpp decodes at once at most (`LLAMA_MAX_SEQ`)."""


CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


class Adjusted(NamedTuple):
    """What a setting's parser returns when the value is not the one that was written, and a sentence that says so."""

    value: Any
    remark: str


def parse_host(text: str) -> Address | Adjusted:
    address, bad_port = address_and_port(text)
    if not bad_port:
        return address
    return Adjusted(address, f'invalid port "{bad_port}", using {address.port}')


ON = ("1", "t", "true", "y", "yes", "on")
OFF = ("0", "f", "false", "n", "no", "off")


def parse_switch(text: str) -> bool:
    """Whether a word means on, in upper or lower case; `ValueError` for one that means neither on nor off."""
    if text.lower() not in ON + OFF:
        raise ValueError(text)
    return text.lower() in ON


def parse_natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def parse_at_most(most: int) -> Callable[[str], int | Adjusted]:
    """A parser of natural numbers that takes larger ones for `most`."""

    def parse(text: str) -> int | Adjusted:
        value = parse_natural(text)
        return value if value <= most else Adjusted(most, f"{value} is too many, using {most}")

    return parse


def parse_keep_alive(text: str) -> float:
    """Seconds of a Go duration or of whole seconds; zero is at once; negative, or `forever`, is for ever."""
    if text.lower() == FOREVER:
        return durations.FOREVER_SECONDS
    try:
        seconds = int(text)
    except ValueError:
        return durations.keep_alive(text)
    return durations.keep_alive(seconds)


def parse_timeout(text: str) -> float:
    """Seconds as `parse_keep_alive` reads them, but zero is for ever too."""
    return parse_keep_alive(text) or durations.FOREVER_SECONDS


def parse_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def parse_mirrors(text: str) -> dict[str, tuple[str, ...]]:
    """`NAME=SOURCE,SOURCE;NAME=SOURCE`."""
    found = {}
    for entry in filter(None, (entry.strip() for entry in text.split(";"))):
        name, equals, sources = entry.partition("=")
        if not equals:
            raise ValueError(entry)
        found[name.strip()] = parse_list(sources)
    return found


def parse_indexes(text: str) -> dict[str, tuple[str, ...]]:
    """`NAME=URL,URL;NAME=URL`: addresses of package indexes; `ValueError` for what is none."""
    found = parse_mirrors(text)
    for address in (address for addresses in found.values() for address in addresses):
        if not address.startswith(("http://", "https://", "file://")):
            raise ValueError(address)
    return found


def parse_pairs(text: str) -> dict[str, str]:
    """`NAME=NAME,NAME=NAME`, of models. `BadRequest` for what is no name."""
    from corral import names  # few have such pairs, and every quick command reads the settings

    found = {}
    for entry in parse_list(text):
        name, equals, value = entry.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise ValueError(entry)
        for one in (name, value):
            names.parse(one.strip())
        found[name.strip()] = value.strip()
    return found


class Replicas(NamedTuple):
    """How many replicas a model has at least, once it was asked for, and at most."""

    least: int = 1
    most: int = 1
    of_models: tuple[tuple[str, int, int], ...] = ()
    """Those of single models, by their names as they are shown."""

    def of(self, name: str) -> tuple[int, int]:
        """At least and at most, for the model that is shown under that name."""
        return next(((least, most) for one, least, most in self.of_models if one == name), (self.least, self.most))

    def __str__(self) -> str:
        return ",".join(
            (f"{self.least}..{self.most}", *(f"{name}={low}..{high}" for name, low, high in self.of_models))
        )


MAX_REPLICAS = 1024


def parse_replicas(text: str) -> Replicas:
    """`MIN..MAX`, `MODEL=MIN..MAX`, or both, separated by commas. `ValueError` or `BadRequest`."""
    from corral import names  # few have a cluster, and every quick command reads the settings

    found = Replicas()
    for entry in parse_list(text):
        name, _, counts = entry.rpartition("=")
        least, dots, most = counts.partition("..")
        low, high = parse_natural(least), parse_natural(most if dots else least)
        if not (low <= high and 1 <= high <= MAX_REPLICAS):
            raise ValueError(f'"{entry}" is no MIN..MAX')
        if name:
            shown = str(names.parse(name.strip()))
            found = found._replace(of_models=(*found.of_models, (shown, low, high)))
        else:
            found = found._replace(least=low, most=high)
    return found


class Amount(float):
    """How much of something, where other numbers with a fraction are seconds."""


def parse_amount(text: str) -> Amount:
    """A number that is not negative, perhaps with a fraction."""
    value = Amount(text)
    if not 0 <= value < 1e6:
        raise ValueError(text)
    return value


def parse_host_and_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'"{text}" is no HOST:PORT')
    return text


def parse_path(text: str) -> Path:
    """Absolute, with `~` and `~user` as home folders."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # the home of a user that does not exist
        raise ValueError(text) from None


def parse_web_address(text: str) -> str:
    """`http[s]://host[:port][/path]`, without a slash at its end; `BadRequest` or `ValueError` for anything else."""
    if not text.startswith(("http://", "https://")):
        raise ValueError(text)
    parse_address(text)
    return text.rstrip("/")


def parse_debug(text: str) -> int:
    """0 info, 1 debug, 2 trace."""
    return 2 if text == "2" else int(parse_switch(text))


def parse_choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(text)
        return text.lower()

    return parse


def parse_on_off(text: str) -> str:
    return "on" if parse_switch(text) else "off"


def parse_flash_attention(text: str) -> str:
    return "auto" if text.lower() == "auto" else parse_on_off(text)


SWITCHES = (parse_switch, parse_debug, parse_on_off, parse_flash_attention)
"""Parsers of settings that a file may set to true or false."""


def _shown(source: str) -> str:
    """A source as it may be shown: addresses of indexes may hold a password."""
    return without_password(source) if source.startswith(("http://", "https://")) else source


def text_of(value: Any) -> str:
    """A setting's value as a person would write it."""
    match value:
        case bool():
            return "true" if value else "false"
        case Amount():
            return f"{value:g}"
        case float():
            return FOREVER if value == durations.FOREVER_SECONDS else durations.text(int(value * durations.SECOND))
        case Replicas():
            return str(value)
        case Address() if value.is_port_only:
            return f"{value.scheme}://:{value.port}{value.path}"
        case tuple():
            return ",".join(map(str, value))
        case dict() if all(isinstance(one, str) for one in value.values()):
            return ",".join(f"{key}={one}" for key, one in value.items())
        case dict() if all(isinstance(one, tuple) for one in value.values()):
            return ";".join(f"{key}={','.join(map(_shown, sources))}" for key, sources in value.items())
        case dict():
            return " | ".join(f"{key}: {one}" for key, one in value.items())
        case _:
            return str(value)
