"""Messages → prompt through the engine, with the model's own template; and what the engine takes of the tools.

The engine makes a grammar of the tools' schemas when it renders, so it refuses tools here that it cannot express. And
many templates take for granted that every property has one type: where one fails at that, it is shown a type.
"""

import asyncio
import logging
from collections.abc import Sequence

from msgspec import structs

from corral import schemas
from corral.engine.base import Engine, EngineChat
from corral.errors import EngineError
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
        self.shown_schemas: tuple[dict[str, Json], ...] = ()
        """As in `EngineChat`; set where the template has failed at the tools' own parameters."""

    async def write(self, tools: Sequence[Tool], messages: Sequence[Message]) -> str:
        """The prompt, with `[img-N]` tags.

        `EngineRefused` for a conversation that the template refuses; `EngineError` where it fails.
        """
        files = [part.data for message in messages for part in message.media]
        prompt.check_modalities(self._model, files)
        # For the text of the prompt the engine need not get the files themselves.
        placeholders = tuple(prompt.with_media(messages, [b"\0"] * len(files)))
        chat = EngineChat(
            messages=placeholders,
            tools=tuple(tools),
            call_schemas=self.call_schemas,
            shown_schemas=self.shown_schemas,
            think=self._think,
            max_tokens=1,
        )
        try:
            return prompt.with_numbers(await self._engine.render(chat))
        except EngineError as error:
            if not await self._adapts(chat, error):
                raise prompt.refusal(error) from error
        return await self.write(tools, messages)

    async def _adapts(self, chat: EngineChat, error: EngineError) -> bool:
        """Whether the definitions of a chat's tools are at fault, and are written in another way from now on.

        The engine runs the template first, then it makes its grammar. Where the template fails in another way with
        other definitions, these were at fault, too.
        """
        if not chat.tools or not error.code:
            return False
        anything = structs.replace(chat, call_schemas=(ANY_ARGUMENTS,) * len(chat.tools))
        if not chat.call_schemas and await self._refusal(anything) is None:
            await self._loosen(chat, error)
            return True
        if chat.shown_schemas:
            return False
        shown = await asyncio.to_thread(_typed_parameters, chat.tools)
        if str(await self._refusal(structs.replace(anything, shown_schemas=shown))) == str(error):
            return False
        self.shown_schemas = shown
        log.info("model %s: the template is shown one type for every property of the tools", self._label)
        return True

    async def _refusal(self, chat: EngineChat) -> EngineError | None:
        """Why the engine does not take a conversation; None: it does."""
        try:
            await self._engine.render(chat)
        except EngineError as error:
            if not error.code:
                raise
            return error
        return None

    async def _loosen(self, chat: EngineChat, refused: EngineError) -> None:
        """Sets the schemas for calls of a chat's tools to what the engine takes of their definitions, tool by tool.

        Halves of the tools, and halves of these, are tried until those are found that the engine refuses.
        """

        async def takes(called: Sequence[dict[str, Json]], chat: EngineChat) -> bool:
            return await self._refusal(structs.replace(chat, call_schemas=tuple(called))) is None

        given = [tool.parameters for tool in chat.tools]
        taken = [ANY_ARGUMENTS] * len(given)
        short = structs.replace(chat, messages=(Message.of("user", "?"),))
        asked = short if await takes(taken, short) else chat
        names: list[str] = []
        waiting = [(0, len(given))]
        while waiting:
            first, end = waiting.pop()
            tried = [*taken[:first], *given[first:end], *taken[end:]]
            if await takes(tried, asked):
                taken = tried
            elif end - first > 1:
                middle = (first + end) // 2
                waiting += [(middle, end), (first, middle)]
            else:
                names.append(chat.tools[first].name)
                tried[first] = await constraint.loosened_arguments(chat.tools[first])
                taken = tried if await takes(tried, asked) else taken
        self.call_schemas = tuple(taken)
        shown = ", ".join(names)[:500]
        log.warning("model %s: arguments of %s are checked in part only: %s", self._label, shown, refused)


def _typed_parameters(tools: Sequence[Tool]) -> tuple[dict[str, Json], ...]:
    return tuple(schemas.typed({"type": "object", **tool.parameters}) for tool in tools)
