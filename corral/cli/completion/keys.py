"""What `keys` is completed with. Loaded when it is typed."""

from collections.abc import Sequence

from corral.cli.completion.candidates import Candidate

ACTIONS = {
    "list": "Show the keys there are",
    "create": "Make one, which is shown once",
    "revoke": "Take one out, by its id or name",
}


def actions() -> Sequence[Candidate]:
    return [Candidate(action, sentence) for action, sentence in ACTIONS.items()]
