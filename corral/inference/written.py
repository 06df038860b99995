"""A conversation → its prompt, in a form that the model's template takes. Knows no template.

Many templates want questions and answers to take turns, a question first, or refuse system texts in the middle. Others
leave such texts out without a word: Mistral's write the first message's, if that is a system text, and no other.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec

from corral.errors import CorralError, EngineError, EngineRefused, TemplateError
from corral.messages import Message, Text
from corral.template.turns import alternating_turns, with_system_as_questions, with_system_first

Write = Callable[[Sequence[Message]], Awaitable[str]]
"""The prompt for a conversation."""

_PROBE = "systemtext"
"""A word that templates write as it is."""


class PromptWriter:
    """Writes a conversation, or in another form what the template refuses.

    `takes_system`: whether the template knows system texts at all. `shows_system`: whether a prompt counts as refused
    that does not hold all of them, when another form's does.
    """

    def __init__(self, write: Write, *, takes_system: bool = True, shows_system: bool = False) -> None:
        self._write = write
        self._takes_system = takes_system
        self._shows_system = shows_system

    async def written(self, messages: Sequence[Message], first: int) -> tuple[tuple[Message, ...], str]:
        """What is kept from the message `first` on, and its prompt.

        `EngineRefused` and `TemplateError`: the template refuses every form.
        """
        accepted: tuple[tuple[Message, ...], str] | None = None
        refused: CorralError | None = None
        for form in self._forms(messages, first):
            try:
                text = await self._write(form)
                if not self._shows_system or await self._has_system_texts(form, text):
                    return form, text
            except (EngineRefused, TemplateError) as error:
                refused = error
                continue
            accepted = accepted or (form, text)
        if accepted is not None:
            return accepted
        assert refused is not None
        raise refused

    def _forms(self, messages: Sequence[Message], first: int) -> Iterator[tuple[Message, ...]]:
        """What may be kept from `first` on: as it is; with alternating roles, late system texts joined to the one in
        front, or else as parts of questions; with no system text at all. And what begins otherwise begins with the next
        question, or the one before.
        """
        questions = [index for index, message in enumerate(messages) if message.role == "user"] if first else []
        after, before = [index for index in questions if index > first], [index for index in questions if index < first]
        for beginning in (first, *after[:1], *before[-1:]):
            kept = tuple(keep_from(messages, beginning))
            yield kept  # as a rule the only one that is wanted, so the others are made when they are
            made = [kept]
            for arrange in self._arrangements():
                form = alternating_turns(arrange(kept))
                if form not in made:
                    made.append(form)
                    yield form

    def _arrangements(self) -> Iterator[Callable[[Sequence[Message]], Sequence[Message]]]:
        """What may be done with system texts."""
        if self._takes_system:
            yield with_system_first
        yield tuple
        if self._shows_system:
            yield with_system_as_questions

    async def _has_system_texts(self, messages: Sequence[Message], prompt: str) -> bool:
        """Whether a prompt holds every system text of its messages, though perhaps in another spelling."""
        texts = [text for message in messages if message.role == "system" and (text := message.text.strip())]
        if all(text in prompt for text in texts):
            return True
        probe = (Text(_PROBE),)
        probed = [msgspec.structs.replace(m, content=probe) if m.role == "system" else m for m in messages]
        with contextlib.suppress(EngineError):
            return (await self._write(probed)).count(_PROBE) >= len(texts)
        return True


def keep_from(messages: Sequence[Message], first: int) -> list[Message]:
    """The system messages among the first ones, and everything from `first` on."""
    return [message for message in messages[:first] if message.role == "system"] + list(messages[first:])
