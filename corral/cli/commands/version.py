"""`--version`, without click, which takes time: scripts run this often. Starts no server. Source: spec cli §2.1.

Under the name `ollama` the version is that of the release that is matched, which tools compare; otherwise Corral's own.
"""

from corral import EMULATES, __version__, config
from corral.access import own_key
from corral.client import Client
from corral.errors import CorralError


def show(program: str) -> None:
    """Prints the running server's version, and this command's when it is another."""
    settings = config.load().config
    own = EMULATES if program == "ollama" else __version__
    try:
        found = Client(settings.host, program, own_key.for_server(settings)).version()
    except CorralError:
        print(f"Warning: could not connect to a running {program.capitalize()} instance")
        print(f"Warning: client version is {own}")
        return
    server = found.ollama if program == "ollama" else found.corral or own
    print(f"{program} version is {server}")
    if server != own:
        print(f"Warning: client version is {own}")
