"""What `engine` is completed with: its actions, and the names of engines. Loaded when one of them is typed."""

from collections.abc import Sequence

from corral.cli.completion.candidates import Candidate

ACTIONS = {
    "list": "Show the engines there are",
    "build": "Compile one for this processor, try it, and use it if it is faster",
    "install": "Fetch one for a GPU, try it, and use it if it is faster",
    "use": "Choose one: the next load of a model takes it",
    "remove": "Remove one that was compiled here",
}


def actions() -> Sequence[Candidate]:
    return [Candidate(action, sentence) for action, sentence in ACTIONS.items()]


def names() -> Sequence[Candidate]:
    """Those that can be chosen; none of them is started."""
    from corral.builds import catalogue
    from corral.config import load

    return [Candidate(name) for name in catalogue.names(load().config)]
