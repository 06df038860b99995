"""Registries that speak the OCI distribution API: Ollama's, Hugging Face's, a plain one.

`client` pulls and pushes models; `transfer` fetches one blob, `upload` sends one, `parallel` runs several transfers;
`ledger` records how much of a blob has arrived; `repository` makes the requests, `retry` repeats them, `auth` and
`keys` show who we are; `http` guards the connections, with `addresses`, `proxies` and `errors`; `encryption` says which
hosts may be asked without any.
"""

from corral.sources.registry.client import Registry
from corral.sources.registry.encryption import Encryption
from corral.sources.registry.limits import TransferLimits
from corral.sources.registry.retry import RetryPolicy

__all__ = ["Encryption", "Registry", "RetryPolicy", "TransferLimits"]
