"""What is known of a model that other servers answer for, for those who list models."""

from msgspec import Struct

from corral.names import Name
from corral.upstreams.facts import Facts

USUAL = ("completion", "tools")
"""What a model is taken to be able to do where no server says it: one that cannot refuses with its own sentence."""


class UpstreamState(Struct, frozen=True):
    """One server behind a name, as lists show it. `error`: why it gets no requests now; `remark`: what was wrong when
    it was asked last what it has. Both are empty where all is well."""

    name: str
    url: str
    model: str
    facts: Facts
    error: str
    remark: str


class ServedState(Struct, frozen=True):
    """A model that other servers answer for, as lists show it, with what they have said of themselves so far."""

    name: Name
    created: int
    """Seconds since the epoch: as a server says, or since when this one knows of it."""
    upstreams: tuple[UpstreamState, ...]
    configured: tuple[str, ...] = ()
    """What it can do as the configuration says; empty: that does not say."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do: as configured, or what all servers can that say anything of it."""
        if self.configured:
            return self.configured
        said = [one.facts.capabilities for one in self.upstreams if one.facts.capabilities]
        common = tuple(one for one in said[0] if all(one in others for others in said)) if said else ()
        return common or USUAL

    @property
    def context_length(self) -> int:
        """The shortest that any says; 0: none does."""
        return min((one.facts.context_length for one in self.upstreams if one.facts.context_length), default=0)

    @property
    def owner(self) -> str:
        return next((one.facts.owner for one in self.upstreams if one.facts.owner), "")

    @property
    def is_ready(self) -> bool:
        """Whether one of them has the model and works, as far as is known."""
        return any(one.facts.is_known and not (one.error or one.remark) for one in self.upstreams)

    @property
    def described(self) -> Facts:
        """What the first one says that says more than its name."""
        said = (one.facts for one in self.upstreams if one.facts.family or one.facts.parameter_size)
        return next(said, Facts())
