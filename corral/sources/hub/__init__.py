"""Which models Hugging Face's hub has: found by words in their names, with the quantisations of each. Fetches none.

`client` asks the hub's public API, `files` tells quantisations from the names of files. A model is pulled from its
registry (`sources.registry`), under the names that are given here.
"""

from corral.sources.hub.client import Found, Hub
from corral.sources.hub.files import Quantisation

__all__ = ["Found", "Hub", "Quantisation"]
