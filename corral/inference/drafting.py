"""Which model drafts tokens for another one: as configured, where their vocabularies are the same."""

import logging
from collections.abc import Mapping

from corral import names, published
from corral.errors import CorralError
from corral.gguf.vocabulary import draft_misfit
from corral.models.model import Model, Models
from corral.names import Name

log = logging.getLogger(__name__)


class Drafters:
    """The configured pairs of a server, by the name of the model that is drafted for.

    `InvalidName` for one that is no name.
    """

    def __init__(self, configured: Mapping[str, str], models: Models) -> None:
        self._models = models
        self._names: dict[Name, Name] = {
            names.parse(model).folded: names.parse(draft) for model, draft in configured.items()
        }
        self._misfits: dict[tuple[str, str], str] = {}
        """What was found of two files of weights."""
        self._said: set[str] = set()

    async def of(self, model: Model) -> Model | None:
        """The model that drafts for this one; None where none does. One that cannot is named in the log, once."""
        name = self._names.get(model.name.folded)
        if name is None:
            return None
        try:
            drafter = await self._models.load(name)
            pair = str(model.weights), str(drafter.weights)
            if pair not in self._misfits:
                self._misfits[pair] = await self._models.store.run(_misfit, model, drafter)
            reason = self._misfits[pair]
        except CorralError as error:
            reason = str(error)
        if not reason:
            return drafter
        sentence = f'"{name}" does not draft for "{model.name}": {reason}'
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning("%s", sentence)
        return None


def _misfit(model: Model, drafter: Model) -> str:
    if drafter.adapters or drafter.projectors or published.plan(drafter.gguf) is not None:
        return "it does not consist of weights alone that the engine loads as they are"
    return draft_misfit(model.gguf, drafter.gguf)
