"""Anthropic's own client: messages, streams, tools, structured output, counting, errors."""

import os
from typing import Literal

import anthropic
from anthropic import AsyncAnthropic
from pydantic import BaseModel

URL = os.environ["URL"]
client = AsyncAnthropic(base_url=URL, api_key="corral", timeout=120)
QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]
GIVEN = {"model": "chatter", "system": "Be brief.", "messages": QUESTION}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Oslo", "Rome"]},
            "days": {"type": "integer", "enum": [1, 2]},
        },
        "required": ["city", "days"],
    },
}


class Weather(BaseModel):
    sky: Literal["clear", "grey"]
    degrees: Literal[3, 20]


def _usage(message):
    return [message.usage.input_tokens, message.usage.output_tokens]


async def chat():
    answer = await client.messages.create(**GIVEN, max_tokens=12)
    (block,) = answer.content
    return {"text": block.text, "role": answer.role, "stop": answer.stop_reason, "usage": _usage(answer)}


async def stream():
    async with client.messages.stream(**GIVEN, max_tokens=12) as parts:
        deltas = [text async for text in parts.text_stream]
        answer = await parts.get_final_message()
    (block,) = answer.content
    return {"deltas": deltas, "text": block.text, "stop": answer.stop_reason, "usage": _usage(answer)}


async def stream_of_events_left_early():
    events = await client.messages.create(**GIVEN, max_tokens=500, stream=True)
    async for event in events:
        first = event.type
        break
    await events.close()
    return {"first": first, "next": (await chat())["text"]}


async def counted():
    counted = await client.messages.count_tokens(model="chatter", system="Be brief.", messages=QUESTION)
    return counted.input_tokens


async def tools():
    return await _agent("chatter")


async def tools_native():
    return await _agent("native")


async def _agent(model):
    messages = list(QUESTION)
    calls = []
    for choice, limit in (({"type": "tool", "name": "get_weather"}, 200), ({"type": "none"}, 12)):
        answer = await client.messages.create(
            model=model, messages=messages, tools=[TOOL], tool_choice=choice, max_tokens=limit
        )
        used = [block for block in answer.content if block.type == "tool_use"]
        calls += [[block.name, block.input] for block in used]
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": "clear, 3 C"} for block in used]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
        stop = answer.stop_reason
    return {"calls": calls, "stop": stop, "answer": "".join(block.text for block in answer.content)}


async def tools_streamed():
    async with client.messages.stream(**GIVEN, tools=[TOOL], tool_choice={"type": "any"}, max_tokens=60) as parts:
        pieces = [event.partial_json async for event in parts if event.type == "input_json"]
        answer = await parts.get_final_message()
    (block,) = [block for block in answer.content if block.type == "tool_use"]
    return {"call": [block.name, block.input], "pieces": "".join(pieces), "stop": answer.stop_reason}


async def parsed():
    answer = await client.messages.parse(**GIVEN, output_format=Weather, max_tokens=60)
    return answer.parsed_output.model_dump()


async def parsed_stream():
    async with client.messages.stream(**GIVEN, output_format=Weather, max_tokens=60) as parts:
        return (await parts.get_final_message()).parsed_output.model_dump()


async def errors():
    found = {}
    for name, changed in {
        "unknown": {"model": "nope"},
        "empty": {"messages": []},
        "no_chat": {"model": "bert"},
        "streamed": {"model": "nope", "stream": True},
    }.items():
        try:
            await client.messages.create(**{**GIVEN, "max_tokens": 4, **changed})
        except anthropic.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.body["error"]["message"]]
    return found


async def no_server():
    try:
        await AsyncAnthropic(base_url="http://127.0.0.1:9", api_key="x", max_retries=0).messages.create(
            **GIVEN, max_tokens=1
        )
    except anthropic.APIConnectionError as error:
        return type(error).__name__
