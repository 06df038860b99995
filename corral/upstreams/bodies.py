"""Our requests in the words of OpenAI's API, with the extensions that vLLM, SGLang and llama-server have.

Only what was asked for is said, so that a server's own defaults hold and one that knows no extension is not given any.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corral import options
from corral.errors import BadRequest, InvalidFormat
from corral.golang import gojson
from corral.golang.text import quote
from corral.media_kinds import kind_of
from corral.messages import (
    AnswerRequest,
    ChatRequest,
    GenerateRequest,
    Json,
    Message,
    Part,
    Picture,
    Sound,
    Text,
    Think,
    Tool,
    ToolCall,
)

_SAME = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_last_n", "presence_penalty")
"""Options that go by the same names."""


def chat_body(model: str, request: ChatRequest, messages: Sequence[Message], given: Mapping[str, Json]) -> bytes:
    """The body of `/v1/chat/completions` for a conversation; `given`: the options that are to be said."""
    body = _common(model, request, given)
    body["messages"] = _messages(messages)
    tools = () if request.tool_choice.mode == "none" else request.tools
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        if request.tool_choice.name:
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice.name}}
        elif request.tool_choice.mode == "required":
            body["tool_choice"] = "required"
        if not request.parallel_calls:
            body["parallel_tool_calls"] = False
    return _finished_chat(body, request, messages)


def single_body(model: str, request: GenerateRequest, messages: Sequence[Message], given: Mapping[str, Json]) -> bytes:
    """The same for a single prompt, as a conversation of a system text and a message."""
    body = _common(model, request, given)
    body["messages"] = _messages(messages)
    return _finished_chat(body, request, messages)


def raw_body(model: str, request: GenerateRequest, given: Mapping[str, Json]) -> bytes:
    """The body of `/v1/completions` for a prompt that is taken as it is."""
    # Corral's own route writes a prompt with the model's template otherwise, as Ollama's does; others ignore the word.
    body = {**_common(model, request, given), "prompt": request.prompt, "raw": True}
    if request.logprobs:
        body["logprobs"] = max(1, request.top_logprobs)
    _add_format(body, request.format)
    return msgspec.json.encode(body)


def embedding_body(model: str, inputs: Sequence[str], dimensions: int) -> bytes:
    """The body of `/v1/embeddings`."""
    body: dict[str, Any] = {"model": model, "input": list(inputs), "encoding_format": "float"}
    return msgspec.json.encode(body | ({"dimensions": dimensions} if dimensions > 0 else {}))


def max_tokens(given: Mapping[str, Json]) -> int:
    """Tokens that the answer may have; 0: as many as the server lets it."""
    wanted = _read(given).get("num_predict", 0)
    return wanted if wanted > 0 else 0


def _common(model: str, request: AnswerRequest, given: Mapping[str, Json]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    said = _read(given)
    body |= {name: said[name] for name in _SAME if name in said}
    if said.get("frequency_penalty") is not None:
        body["frequency_penalty"] = said["frequency_penalty"]
    if (penalty := said.get("repeat_penalty", 0)) > 0:
        body |= {"repetition_penalty": penalty, "repeat_penalty": penalty}  # vLLM's name and llama-server's
    if said.get("seed", -1) >= 0:
        body["seed"] = said["seed"]
    if said.get("num_predict", 0) > 0:
        body["max_tokens"] = said["num_predict"]
    if stop := [word for word in said.get("stop", ()) if word]:
        body["stop"] = stop
    if request.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in request.logit_bias.items()}
    return body


def _read(given: Mapping[str, Json]) -> dict[str, Any]:
    """The options that have a value, of the right types; `InvalidOption`. Others mean nothing to another server."""
    return {
        name: options.read(name, value) for name, value in given.items() if name in options.KINDS and value is not None
    }


def _finished_chat(body: dict[str, Any], request: AnswerRequest, messages: Sequence[Message]) -> bytes:
    if request.logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    _add_thinking(body, request.think)
    _add_format(body, request.format)
    if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        # The model goes on with this answer, where the server knows these words.
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return msgspec.json.encode(body)


def _add_thinking(body: dict[str, Any], think: Think) -> None:
    if think is None:
        return
    body["chat_template_kwargs"] = {"enable_thinking": bool(think)}
    if isinstance(think, str):
        body["reasoning_effort"] = "high" if think == "max" else think


def _add_format(body: dict[str, Any], wanted: Json) -> None:
    match wanted:
        case None:
            pass
        case "json":
            body["response_format"] = {"type": "json_object"}
        case dict():
            schema = {"name": "answer", "schema": wanted, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            raise InvalidFormat(quote(gojson.encode(wanted).decode()))


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A result of a tool names the call that it answers, which Ollama's API leaves out."""
    written, open_calls = [], []
    for number, message in enumerate(messages):
        entry: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.media:
            entry["content"] = [_part(part) for part in message.content if part != Text("")]
        if message.tool_calls:
            calls = [(call.id or f"call_{number}_{place}", call) for place, call in enumerate(message.tool_calls)]
            entry["tool_calls"] = [_call(call_id, call) for call_id, call in calls]
            open_calls = [(call_id, call.name) for call_id, call in calls]
        if message.thinking:
            entry["reasoning_content"] = message.thinking
        if message.role == "tool":
            entry["tool_call_id"] = message.tool_call_id or _answered(open_calls, message.tool_name)
            if message.tool_name:
                entry["name"] = message.tool_name
        written.append(entry)
    return written


def _answered(open_calls: list[tuple[str, str]], name: str) -> str:
    """The id of the call that a result is for: the first one of that name, or the first one, that has none yet."""
    for place, (call_id, called) in enumerate(open_calls):
        if name in ("", called):
            del open_calls[place]
            return call_id
    return f"call_{name or 'unknown'}"


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Picture(file):
            kind = kind_of(file)
            if not kind:
                raise BadRequest("a picture is of no kind that is known")
            url = f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
            return {"type": "image_url", "image_url": {"url": url}}
        case Sound(file):
            audio = {"data": base64.b64encode(file).decode(), "format": kind_of(file) or "wav"}
            return {"type": "input_audio", "input_audio": audio}


def _call(call_id: str, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()}
    return {"type": "function", "id": call_id, "function": function}


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters if tool.schema is None else tool.schema
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    return {"type": "function", "function": function | strict | tool.more}
