"""The Go template of a model: parsed once, asked what it supports, rendered for messages, a prompt, or a prompt with
its suffix (spec cli §14). Knows text; which template a model uses and what fits its context is decided above.

A template is hostile until it has been run: it sees plain values only, and steps, text and depth are bounded, so a
rendering ends, in text or in a `TemplateError`.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from corral.errors import TemplateError
from corral.messages import Message, Think, Tool
from corral.template import syntax
from corral.template.execute import SMALL_OUTPUT, Budget, execute
from corral.template.images import number_images
from corral.template.jinja import (
    jinja_capabilities,
    jinja_has_tool_round_trip,
    jinja_is_harmony,
    jinja_think_tags,
    jinja_tool_tag,
)
from corral.template.nodes import Program
from corral.template.values import collate, message_value, thinking, tool_values

SMALL_MESSAGES = 50
"""Messages that are made values of a template in well under a millisecond."""

__all__ = [
    "Template",
    "jinja_capabilities",
    "jinja_has_tool_round_trip",
    "jinja_is_harmony",
    "jinja_think_tags",
    "jinja_tool_tag",
    "number_images",
    "parse",
]


def parse(text: str) -> "Template":
    """`TemplateError` in Go's words (`template: :LINE: reason`) when the template is broken."""
    program = syntax.parse(text)
    names = syntax.names_used(program)
    if "messages" not in names and "response" not in names:
        program = syntax.with_response(program)
    return Template(
        text=text,
        variables=names,
        think_tags=syntax.think_tags(program),
        tool_tag=syntax.tool_tag(program),
        _whole=program,
        _open=syntax.cut_after_response(program),
    )


class Template(Struct, frozen=True):
    """A parsed template; made by `parse`. Rendering it changes nothing, so threads may share it."""

    text: str
    """As it was given."""

    variables: frozenset[str]
    """Every field and variable name it mentions, in lower case."""

    think_tags: tuple[str, str] | None
    """Opening and closing tag around a model's thoughts, inferred from how the template writes earlier ones."""

    tool_tag: str
    """What it writes before a tool call; `{` when it writes bare JSON."""

    _whole: Program
    _open: Program

    @property
    def uses_messages(self) -> bool:
        """Whether it walks over the messages itself; else it is run once for each exchange (spec cli §14.4)."""
        return "messages" in self.variables

    @property
    def capabilities(self) -> tuple[str, ...]:
        """`tools`, `insert` and `thinking`, in this order, as far as it supports them (spec cli §14.5)."""
        supported = {"tools": "tools" in self.variables, "insert": "suffix" in self.variables}
        supported["thinking"] = self.think_tags is not None
        return tuple(name for name, is_supported in supported.items() if is_supported)

    @property
    def has_tool_round_trip(self) -> bool:
        """Whether it writes both tool calls and their results back into the conversation (spec cli §14.1)."""
        marks = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
        return {"tools", "toolcalls"} <= self.variables and any(mark in self.text for mark in marks)

    def render(self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), think: Think = None) -> str:
        """The prompt for a conversation; `TemplateError` when the template fails or overruns its budget.

        A single prompt is a conversation of its system text and a user message. Content is taken as it is: images
        have been numbered before (`number_images`).
        """
        return self._rendered(messages, tools, think, _budget(messages, tools))

    def render_small(self, messages: Sequence[Message], *, think: Think = None) -> str | None:
        """The same of a short conversation without tools, in a few milliseconds at most; None: that is too little."""
        if sum(len(message.text) + len(message.thinking) for message in messages) > SMALL_OUTPUT // 2:
            return None
        if len(messages) > SMALL_MESSAGES or any(message.tool_calls for message in messages):
            return None
        with suppress(TemplateError):  # `render` says which
            return self._rendered(messages, (), think, Budget.small())
        return None

    def _rendered(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think, budget: Budget) -> str:
        system, collated = collate(messages)
        if not self.uses_messages:
            return self._render_exchanges(collated, think, budget)
        data = {
            "System": system,
            "Messages": [message_value(message) for message in collated],
            "Tools": tool_values(tools),
            "Response": "",
            **thinking(think),
        }
        return execute(self._whole, data, budget)

    def render_suffix(self, prompt: str, suffix: str, *, think: Think = None) -> str:
        """The prompt for text to be filled in between `prompt` and `suffix`."""
        data = {"Prompt": prompt, "Suffix": suffix, "Response": "", **thinking(think)}
        return execute(self._whole, data, Budget(characters=len(prompt) + len(suffix)))

    def _render_exchanges(self, messages: Sequence[Message], think: Think, budget: Budget) -> str:
        """Runs a template of the older form once for each exchange of system, prompt and response (spec cli §14.4)."""
        system = prompt = response = ""
        rendered: list[str] = []

        def data() -> dict[str, Any]:
            return {"System": system, "Prompt": prompt, "Response": response, **thinking(think)}

        for message in messages:
            if (message.role == "system" and (prompt or response)) or (message.role == "user" and response):
                rendered.append(execute(self._whole, data(), budget))
                system = prompt = response = ""
            match message.role:
                case "system":
                    system = message.text
                case "user":
                    prompt = message.text
                case "assistant":
                    response = message.text
        rendered.append(execute(self._open, data(), budget))
        return "".join(rendered)


def _budget(messages: Sequence[Message], tools: Sequence[Tool]) -> Budget:
    calls = [call for message in messages for call in message.tool_calls]
    characters = len(msgspec.json.encode((tools, calls)))
    characters += sum(len(message.text) + len(message.thinking) for message in messages)
    return Budget(values=len(messages) + len(tools) + len(calls), characters=characters)
