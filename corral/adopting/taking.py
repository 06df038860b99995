"""A model of another program's becomes one of the store's: the files as they are, a manifest under its name."""

from collections.abc import Callable

from corral.adopting.found import Candidate
from corral.messages import Progress
from corral.models.assemble import assemble, write_model
from corral.store import Store, Stored


def take(model: Candidate, store: Store, progress: Callable[[Progress], None] = lambda _: None) -> Stored:
    """Hashes, links and checks the files, as `create` does it; blocking. Errors: as of `assemble`, and `StoreError`.

    On any error the store is as it was.
    """
    made = assemble({file.path.name: file.real for file in model.files}, store, progress=progress)
    try:
        return write_model(store.resolve(model.name), made, store)
    except BaseException:
        store.discard(made.created)
        raise
