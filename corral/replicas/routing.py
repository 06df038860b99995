"""Which replica of a model gets a request: one pure function over what is known of each."""

from collections.abc import Sequence

from msgspec import Struct


class ReplicaState(Struct, frozen=True, gc=False):
    """A replica of a model at one moment, as one request sees it."""

    name: str
    tier: int = 0
    """Replicas of a lower tier are asked first, and those of a higher one when all below have no room."""
    weight: float = 1.0
    """How much of the work it is to get beside the others; positive."""
    is_usable: bool = True
    """Whether its connections work, as far as is known."""
    is_warm: bool = True
    """Whether the model is loaded there."""
    has_room: bool = True
    """Whether it would begin with the request at once."""
    in_flight: int = 0
    """Tokens of the requests that it has now: of their prompts, and of their answers as far as they may come."""
    known: int = 0
    """Tokens of this request's prompt that it has probably in its cache."""
    served: int = 0
    """Requests that it was given so far."""


class Route(Struct, frozen=True):
    """The replica that was chosen, counted from 0, and why, in a few words for a person."""

    index: int
    reason: str


def route(tokens: int, replicas: Sequence[ReplicaState]) -> Route | None:
    """The replica for a prompt of about so many tokens; None where none is usable.

    Among those of the lowest tier with room, warm ones go before cold ones, and among these the one with the least to
    do until this prompt is read: what it has in flight, by its weight, and what of the prompt it does not know. So the
    replica that knows most of a prompt gets it, unless it carries so much more than the least loaded that waiting costs
    more than reading.
    """
    ranks = [
        (
            not replica.has_room,
            replica.tier,
            not replica.is_warm,
            # what lies before the answer's first token, in tokens; where that is equal, who was given least so far
            replica.in_flight / replica.weight + (tokens - replica.known if tokens > replica.known else 0),
            replica.served / replica.weight,
            -replica.known,
            index,
        )
        for index, replica in enumerate(replicas)
        if replica.is_usable
    ]
    if not ranks:
        return None
    index = min(ranks)[-1]
    return Route(index, _reason(index, [rank[-1] for rank in ranks], replicas))


def _reason(chosen: int, usable: Sequence[int], replicas: Sequence[ReplicaState]) -> str:
    replica = replicas[chosen]
    if len(usable) == 1:
        return "the only one" if len(replicas) == 1 else "the only one that can be reached"
    kind = (replica.has_room, replica.tier, replica.is_warm)
    known = [one.known for one in map(replicas.__getitem__, usable) if (one.has_room, one.tier, one.is_warm) == kind]
    tiers = [replicas[index].tier for index in usable]
    if min(tiers) < replica.tier:
        return "those before it have no room"
    if len(known) == 1:
        return (
            "it comes before the others" if max(tiers) > replica.tier else "the only one with room and the model loaded"
        )
    most = max(known)
    if replica.known and replica.known == most:
        return f"knows {replica.known} tokens of the prompt"
    if most:
        return f"less to do than the one that knows {most} tokens of the prompt"
    return "least to do"
