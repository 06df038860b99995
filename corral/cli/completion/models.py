"""The models that the running server has, for completion: at once, or none. Starts no server and says nothing."""

import re
import threading
from collections.abc import Sequence

from corral.cli.completion.candidates import Candidate

SECONDS = 2.0
"""How long the server may take; what comes later is not waited for."""

_NAME = re.compile(r"[\w.:/-]+", re.ASCII)
"""What a shell may be given: a server could answer with anything, and the shell puts it into a command line."""


def names(running: bool) -> Sequence[Candidate]:
    """The models, or only those that are loaded, with their sizes; none when there is no server or it is slow."""
    found: list[Candidate] = []
    asking = threading.Thread(target=_ask, args=(running, found), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return list(found)


def _ask(running: bool, found: list[Candidate]) -> None:
    from corral import config
    from corral.access import own_key
    from corral.client import Client
    from corral.errors import CorralError
    from corral.golang.units import byte_text

    try:
        settings = config.load().config
        client = Client(settings.host, key=own_key.for_server(settings))
        models = client.ps() if running else client.tags()
    except (CorralError, OSError):
        return
    found += [
        Candidate(model.name.removesuffix(":latest"), byte_text(model.size))
        for model in models
        if _NAME.fullmatch(model.name)
    ]
