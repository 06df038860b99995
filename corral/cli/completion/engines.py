"""The names of engines, with which `engine use` is completed. Loaded when one is typed."""

from collections.abc import Sequence

from corral.cli.completion.candidates import Candidate


def names() -> Sequence[Candidate]:
    """Those that can be chosen; none of them is started."""
    from corral.builds import catalogue
    from corral.config import load

    return [Candidate(name) for name in catalogue.names(load().config)]
