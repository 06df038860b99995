"""The events of a streamed response, and the whole one as what they amount to. Source: spec api §18.3."""

from typing import Any

from msgspec import Struct

from corral.errors import CorralError
from corral.golang import gojson
from corral.messages import Chunk, ToolCall
from corral.server.http.events import event
from corral.server.openai.errors import CODES
from corral.server.openai.responses.items import Item
from corral.server.openai.responses.replies import Echo, finished, response
from corral.server.openai.responses.wire import CUSTOM_INPUT, CalledTool


def whole(echo: Echo, answer: Chunk) -> dict[str, Any]:
    """The reply that is not streamed: what the events of the stream amount to."""
    writer = ResponseWriter(echo)
    writer.chunk(0, answer)
    assert writer.finished is not None, "a whole answer ends"
    return writer.finished


class ResponseWriter:
    """The events of a streamed response. Items are opened and closed one after the other."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._sequence = 0
        self._output: list[Item] = []
        self._open: _OpenText | None = None
        self._has_begun = False
        self._counts: dict[str, int] = {}
        self.finished: dict[str, Any] | None = None
        """The response, once it is complete."""

    def opening(self) -> bytes:
        self._has_begun = True
        started = response(self._echo, "in_progress", [])
        return self._event("response.created", response=started) + self._event("response.in_progress", response=started)

    def waiting(self) -> bytes:
        """Comments would not do: some clients wait for events."""
        return self._event("response.in_progress", response=response(self._echo, "in_progress", []))

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        data = b""
        if chunk.thinking:
            data += self._text(_THOUGHT, chunk.thinking)
        if chunk.content:
            data += self._text(_MESSAGE, chunk.content)
        for call in chunk.tool_calls:
            data += self._close("completed") + self._call(call)
        return data + self._end(chunk) if chunk.done_reason else data

    def failure(self, error: CorralError) -> bytes:
        code = next((code for of, code in CODES.items() if isinstance(error, of)), "server_error")
        failed = response(self._echo, "failed", [], error={"code": code, "message": str(error)})
        return self._event("response.failed", response=failed)

    def _event(self, name: str, **data: Any) -> bytes:
        """An event, its members in the order of the alphabet."""
        members = {**data, "sequence_number": self._sequence, "type": name}
        self._sequence += 1
        return event(gojson.sort_keys(members), name)

    def _next_id(self, prefix: str) -> str:
        count = self._counts.get(prefix, 0)
        self._counts[prefix] = count + 1
        return (
            f"{prefix}_{self._echo.id}_{count}" if count or prefix not in ("rs", "msg") else f"{prefix}_{self._echo.id}"
        )

    def _text(self, kind: "_TextKind", text: str) -> bytes:
        data = b""
        if self._open is None or self._open.kind is not kind:
            data = self._close("completed")
            self._open = _OpenText(kind, self._next_id(kind.prefix), len(self._output))
            started = self._open.item("in_progress", [], "")
            data += self._event("response.output_item.added", output_index=self._open.index, item=started)
            data += self._event(kind.part_added, **self._open.place, part=kind.part(""))
        self._open.texts.append(text)
        delta = kind.delta_of(self._open, text, self._sequence)
        self._sequence += 1
        return data + event(delta, delta.type)

    def _close(self, status: str) -> bytes:
        """Ends the item that is open, if one is."""
        if self._open is None:
            return b""
        opened, self._open = self._open, None
        kind, text = opened.kind, "".join(opened.texts)
        item = opened.item(status, [kind.part(text)], text)
        self._output.append(item)
        return (
            self._event(kind.done, **opened.place, text=text, **kind.more)
            + self._event(kind.part_done, **opened.place, part=kind.part(text))
            + self._event("response.output_item.done", output_index=opened.index, item=item)
        )

    def _call(self, call: ToolCall) -> bytes:
        index = len(self._output)
        tool = self._echo.tools.get(call.name, CalledTool(call.name))
        item_id = self._next_id("ctc" if tool.is_custom else "fc")
        kind = "custom_tool_call" if tool.is_custom else "function_call"
        field = "input" if tool.is_custom else "arguments"
        text = _custom_input(call) if tool.is_custom else gojson.encode(call.arguments).decode()
        head = {"id": item_id, "type": kind}
        names = {"call_id": call.id, "name": tool.name, **({"namespace": tool.namespace} if tool.namespace else {})}
        item = {**head, "status": "completed", **names, field: text}
        self._output.append(item)
        place = {"item_id": item_id, "output_index": index}
        event_name = "response.custom_tool_call_input" if tool.is_custom else "response.function_call_arguments"
        return (
            self._event(
                "response.output_item.added",
                output_index=index,
                item={**head, "status": "in_progress", **names, field: ""},
            )
            + self._event(f"{event_name}.delta", **place, delta=text)
            + self._event(f"{event_name}.done", **place, **{field: text})
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _end(self, last: Chunk) -> bytes:
        is_cut = last.done_reason == "length" and self._echo.asked.max_output_tokens is not None
        data = self._close("incomplete" if is_cut else "completed")
        self.finished = finished(self._echo, self._output, last)
        return data + self._event("response.incomplete" if is_cut else "response.completed", response=self.finished)


class _MessageDelta(Struct):
    """What comes once a token is made without sorting; the order of fields is that of the alphabet."""

    content_index: int
    delta: str
    item_id: str
    logprobs: tuple[()]
    output_index: int
    sequence_number: int
    type: str


class _ThoughtDelta(Struct):
    delta: str
    item_id: str
    output_index: int
    sequence_number: int
    summary_index: int
    type: str


class _TextKind(Struct, frozen=True):
    """How texts of a kind are written: a message's, or a thought's."""

    prefix: str
    type: str
    part_type: str
    index_name: str
    part_added: str
    done: str
    part_done: str
    more: dict[str, Any]

    def part(self, text: str) -> dict[str, Any]:
        if self.type == "message":
            return {"type": self.part_type, "text": text, "annotations": [], "logprobs": []}
        return {"type": self.part_type, "text": text}

    def delta_of(self, opened: "_OpenText", text: str, sequence: int) -> _MessageDelta | _ThoughtDelta:
        if self.type == "message":
            return _MessageDelta(0, text, opened.id, (), opened.index, sequence, "response.output_text.delta")
        return _ThoughtDelta(text, opened.id, opened.index, sequence, 0, "response.reasoning_summary_text.delta")


_MESSAGE = _TextKind(
    "msg",
    "message",
    "output_text",
    "content_index",
    "response.content_part.added",
    "response.output_text.done",
    "response.content_part.done",
    {"logprobs": []},
)
_THOUGHT = _TextKind(
    "rs",
    "reasoning",
    "summary_text",
    "summary_index",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    {},
)


class _OpenText:
    """An item that is being said."""

    def __init__(self, kind: _TextKind, item_id: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.id = item_id
        self.texts: list[str] = []
        self.place = {"item_id": item_id, "output_index": index, kind.index_name: 0}

    def item(self, status: str, parts: list[dict[str, Any]], text: str) -> Item:
        """The item as it stands; a thought's text is what clients send back to us."""
        if self.kind is _MESSAGE:
            return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": parts}
        item: Item = {"id": self.id, "type": "reasoning", "summary": parts}
        return {**item, "encrypted_content": text} if text else item


def _custom_input(call: ToolCall) -> str:
    """The text for a tool that takes one; arguments that are not as they should be come as JSON."""
    text = call.arguments.get(CUSTOM_INPUT)
    return text if isinstance(text, str) and len(call.arguments) == 1 else gojson.encode(call.arguments).decode()
