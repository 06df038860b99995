"""Registries that speak the OCI distribution API: Ollama's, Hugging Face's, a plain one.

`client` pulls and pushes models, `transfer` fetches one blob and `upload` sends one, `ledger` records how much of a
blob has arrived, `repository` makes the requests, `auth` and `keys` show who we are, `http` guards the connections.
"""

from corral.sources.registry.client import Registry
from corral.sources.registry.limits import Limits

__all__ = ["Limits", "Registry"]
