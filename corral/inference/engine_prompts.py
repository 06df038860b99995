"""Messages → prompt through the engine, with the model's own template; and what the engine takes of the tools.

The engine makes a grammar of the tools' schemas when it renders, so it refuses tools here that it cannot express.
"""

import logging
from collections.abc import Sequence

from msgspec import structs

from corral.engine.base import Engine, EngineChat
from corral.errors import EngineRefused
from corral.inference import constraint, prompt
from corral.messages import Json, Message, Think, Tool
from corral.models.model import Model

log = logging.getLogger(__name__)

ANY_ARGUMENTS: dict[str, Json] = {"type": "object"}
"""The schema of a tool's arguments of which nothing is known."""


class EnginePrompts:
    """Writes the prompts of one request, whose tools are the same in all of them. `label` is the model's in the log."""

    def __init__(self, model: Model, engine: Engine, label: str, think: Think) -> None:
        self._model = model
        self._engine = engine
        self._label = label
        self._think = think
        self.call_schemas: tuple[dict[str, Json], ...] = ()
        """As in `EngineChat`; set where the engine has refused the tools' own parameters."""

    async def write(self, tools: Sequence[Tool], messages: Sequence[Message]) -> str:
        """The prompt, with `[img-N]` tags. `EngineRefused` for a conversation that the template refuses."""
        files = [part.data for message in messages for part in message.media]
        prompt.check_modalities(self._model, files)
        # For the text of the prompt the engine need not get the files themselves.
        placeholders = tuple(prompt.with_media(messages, [b"\0"] * len(files)))
        chat = EngineChat(
            messages=placeholders,
            tools=tuple(tools),
            call_schemas=self.call_schemas,
            think=self._think,
            max_tokens=1,
        )
        try:
            return prompt.with_numbers(await self._engine.render(chat))
        except EngineRefused as error:
            if not tools or self.call_schemas or not await self._renders(chat, [ANY_ARGUMENTS] * len(tools)):
                raise prompt.refusal(error) from error
            await self._loosen(chat, error)
        return prompt.with_numbers(await self._engine.render(structs.replace(chat, call_schemas=self.call_schemas)))

    async def _renders(self, chat: EngineChat, call_schemas: Sequence[dict[str, Json]]) -> bool:
        """Whether the engine takes a conversation, whose tools' arguments are to fit these schemas."""
        try:
            await self._engine.render(structs.replace(chat, call_schemas=tuple(call_schemas)))
        except EngineRefused:
            return False
        return True

    async def _loosen(self, chat: EngineChat, refused: EngineRefused) -> None:
        """Sets the schemas for calls of a chat's tools to what the engine takes of their definitions, tool by tool.

        Halves of the tools, and halves of these, are tried until those are found that the engine refuses.
        """
        given = [tool.parameters for tool in chat.tools]
        taken = [ANY_ARGUMENTS] * len(given)
        short = structs.replace(chat, messages=(Message.of("user", "?"),))
        asked = short if await self._renders(short, taken) else chat
        names: list[str] = []
        waiting = [(0, len(given))]
        while waiting:
            first, end = waiting.pop()
            tried = [*taken[:first], *given[first:end], *taken[end:]]
            if await self._renders(asked, tried):
                taken = tried
            elif end - first > 1:
                middle = (first + end) // 2
                waiting += [(middle, end), (first, middle)]
            else:
                names.append(chat.tools[first].name)
                tried[first] = await constraint.loosened_arguments(chat.tools[first])
                taken = tried if await self._renders(asked, tried) else taken
        self.call_schemas = tuple(taken)
        shown = ", ".join(names)[:500]
        log.warning("model %s: arguments of %s are checked in part only: %s", self._label, shown, refused)
