"""Merges turns so that roles alternate, for templates that refuse others. Knows messages, no template.

Many published templates refuse what does not alternate between questions and answers, or system texts in the middle
(Gemma's, Llama 2's, Qwen 3.5's); those of Mistral refuse ids of calls that have not nine letters and digits. A caller
tries the conversation as it is first.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from corral.messages import Message, Part, Text, ToolCall


def alternating_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with alternating roles and short ids.

    Neighbouring questions become one, with a blank line between their texts, and so do answers without calls; a
    system text after the beginning is part of the question it stands at.
    """
    return tuple(_with_short_ids(_joined(_as_questions(messages))))


def with_system_first(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with all system texts as one in front; as it is where it would end in an answer then."""
    systems = [message for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    ends_in_answer = bool(others) and others[-1].role == "assistant" and messages[-1].role == "system"
    if not systems or ends_in_answer:
        return tuple(messages)
    return (msgspec.structs.replace(systems[0], content=_joined_content(systems)), *others)


def with_system_as_questions(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with every system text as a question, for templates that know none."""
    return tuple(msgspec.structs.replace(one, role="user") if one.role == "system" else one for one in messages)


def _as_questions(messages: Sequence[Message]) -> Iterator[Message]:
    beginning = True
    for message in messages:
        beginning = beginning and message.role == "system"
        is_late = message.role == "system" and not beginning
        yield msgspec.structs.replace(message, role="user") if is_late else message


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    for is_alike, group in itertools.groupby(messages, lambda message: (message.role, not message.tool_calls)):
        neighbours = list(group)
        if is_alike not in (("user", True), ("assistant", True)):
            yield from neighbours
            continue
        yield msgspec.structs.replace(
            neighbours[0],
            content=_joined_content(neighbours),
        )


def _joined_content(messages: Iterable[Message]) -> tuple[Part, ...]:
    """The parts of all messages, with a blank line between those that have words."""
    parts: list[Part] = []
    for message in messages:
        if message.text and any(isinstance(part, Text) for part in parts):
            parts.append(Text("\n\n"))
        parts += message.content
    return tuple(parts)


def _with_short_ids(messages: Iterable[Message]) -> Iterator[Message]:
    """A result without an id gets that of the call it answers."""
    waiting: list[ToolCall] = []
    for message in messages:
        if message.tool_calls:
            waiting = [
                msgspec.structs.replace(call, id=_short(call.id or _identity(call))) for call in message.tool_calls
            ]
            yield msgspec.structs.replace(message, tool_calls=tuple(waiting))
        elif message.role == "tool":
            answered = _answered(message, waiting)
            waiting = [call for call in waiting if call is not answered]
            number = _short(message.tool_call_id) if message.tool_call_id or answered is None else answered.id
            yield msgspec.structs.replace(message, tool_call_id=number)
        else:
            yield message


def _answered(result: Message, waiting: Sequence[ToolCall]) -> ToolCall | None:
    """The call of this id; for a result without one the next call of its name, or else the next one."""
    if result.tool_call_id:
        return next((call for call in waiting if call.id == _short(result.tool_call_id)), None)
    return next((call for call in waiting if call.name == result.tool_name), next(iter(waiting), None))


def _identity(call: ToolCall) -> str:
    """What stands for the id of a call without one; the same in every request, so that prompts begin alike."""
    return msgspec.json.encode((call.index, call.name, call.arguments)).decode()


def _short(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9]{9}", text) else hashlib.sha256(text.encode()).hexdigest()[:9]
