"""Names of models and of parts of a split file, and digests: their grammar, forms and parsers.

Knows nothing of what a name stands for. Source of the rules: spec cli §6 (names), api §3 (source suffixes) and §12
(digests).
"""

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from corral.errors import BadRequest, InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")
_SPLIT_PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})(\.gguf)?\Z", re.IGNORECASE | re.DOTALL)
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A complete model name. Every part has passed its grammar, so the path form stays inside the store."""

    host: str
    namespace: str
    model: str
    tag: str

    def __post_init__(self) -> None:
        parts = ((self.host, _HOST), (self.namespace, _NAMESPACE), (self.model, _MODEL), (self.tag, _MODEL))
        for part, grammar in parts:
            if not grammar.match(part) or part in (".", ".."):
                raise InvalidName("invalid model name")

    def __str__(self) -> str:
        """Shortest form that still names it; the tag is always there."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        """`host/namespace/model:tag`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def path(self) -> PurePosixPath:
        """Where its manifest lies below the store's `manifests` folder."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    @property
    def folded(self) -> "Name":
        """The same name in lower case: names are compared ignoring case, part by part."""
        return replace(
            self,
            host=self.host.lower(),
            namespace=self.namespace.lower(),
            model=self.model.lower(),
            tag=self.tag.lower(),
        )


def parse(text: str) -> Name:
    """`[scheme://][host/][namespace/]model[:tag]` with the defaults filled in; `InvalidName` otherwise."""
    rest = text.strip()
    if "://" in rest:
        rest = rest.split("://", 1)[1]
    tag = DEFAULT_TAG
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
    parts = rest.split("/")
    if len(parts) > 3:
        raise InvalidName("invalid model name")
    host, namespace, model = [DEFAULT_HOST, DEFAULT_NAMESPACE][: 3 - len(parts)] + parts
    return Name(host, namespace, model, tag)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name as a request may give it: with a suffix that says where the model is to run (spec api §3)."""

    name: Name
    cloud: bool = False
    local: bool = False


def parse_reference(text: str) -> Reference:
    """Reads a trailing `:cloud`, `-cloud` or `:local` off the name; two of them are refused."""
    raw = text.strip()
    base, cloud, local = _split_source(raw)
    if (cloud or local) and any(_split_source(base)[1:]):
        raise BadRequest(f'use either :local or :cloud, not both: "{raw}"')
    return Reference(parse(base), cloud, local)


def _split_source(raw: str) -> tuple[str, bool, bool]:
    head, colon, last = raw.rpartition(":")
    if colon and last.lower() in ("cloud", "local"):
        return head, last.lower() == "cloud", last.lower() == "local"
    if colon and last.lower().endswith("-cloud") and "/" not in last:
        return raw[: -len("-cloud")], True, False
    return raw, False, False


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 digest: 64 lower-case hex digits, nothing else can be made."""

    hex: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.hex):
            raise InvalidName("invalid digest format")

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve digits, as progress lines and tables show them."""
        return self.hex[:12]

    @property
    def filename(self) -> str:
        """Its blob's file name in the store."""
        return f"sha256-{self.hex}"


def parse_digest(text: str) -> Digest:
    """`sha256:<64 hex>` or `sha256-<64 hex>`; anything else is `InvalidName`. The only parser of digests."""
    match = _DIGEST.match(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidName("invalid digest format")
    return Digest(match[1])


@dataclass(frozen=True, slots=True)
class SplitPart:
    """The name of one of several files that hold a model together: `STEM-00002-of-00003.gguf`."""

    stem: str
    number: int
    count: int
    suffix: str
    """`.gguf` as it is spelled there, or empty."""

    def sibling(self, number: int) -> str:
        """The name of another of the files."""
        return f"{self.stem}-{number:05d}-of-{self.count:05d}{self.suffix}"


def parse_split_part(file_name: str) -> SplitPart | None:
    """None for a name of another form."""
    match = _SPLIT_PART.match(file_name)
    return SplitPart(match[1], int(match[2]), int(match[3]), match[4] or "") if match else None
