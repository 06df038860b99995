"""OpenAI's own client: chat, streams, tools, structured output, embeddings, transcriptions, responses, errors."""

import io
import json
import math
import os
import wave
from typing import Literal

import openai
from openai import AsyncOpenAI
from pydantic import BaseModel

URL = os.environ["URL"]
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="corral", timeout=120)
QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]
BRIEF = {"temperature": 0, "max_tokens": 12}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": PARAMETERS}}
FORCED = {"type": "function", "function": {"name": "get_weather"}}


class Weather(BaseModel):
    sky: Literal["clear", "grey"]
    degrees: Literal[3, 20]


async def models():
    listed = [model.id async for model in client.models.list()]
    return {"listed": listed, "retrieved": (await client.models.retrieve("chatter")).id}


async def chat():
    answer = await client.chat.completions.create(model="chatter", messages=QUESTION, **BRIEF)
    (choice,) = answer.choices
    return {
        "text": choice.message.content,
        "role": choice.message.role,
        "finish": choice.finish_reason,
        "refusal": choice.message.refusal,
        "usage": [answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens],
    }


async def stream():
    options = {"include_usage": True}
    async with client.chat.completions.stream(
        model="chatter", messages=QUESTION, stream_options=options, **BRIEF
    ) as parts:
        deltas = [event.delta async for event in parts if event.type == "content.delta"]
        answer = parts.current_completion_snapshot  # the final one is refused when it was cut off
    (choice,) = answer.choices
    return {
        "deltas": deltas,
        "text": choice.message.content,
        "role": choice.message.role,
        "finish": choice.finish_reason,
        "usage": [answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens],
    }


async def stream_of_chunks_left_early():
    chunks = await client.chat.completions.create(model="chatter", messages=QUESTION, stream=True, temperature=0)
    async for chunk in chunks:
        first = chunk.choices[0].delta
        break
    await chunks.close()
    return {"role": first.role, "next": (await chat())["text"]}


async def tools():
    return await _agent("chatter")


async def tools_native():
    return await _agent("native")


async def _agent(model):
    messages = list(QUESTION)
    calls = []
    for choice, limit in ((FORCED, 200), ("none", 12)):
        answer = await client.chat.completions.create(
            model=model, messages=messages, tools=[TOOL], tool_choice=choice, temperature=0, max_tokens=limit
        )
        (given,) = answer.choices
        messages.append(given.message)
        for call in given.message.tool_calls or ():
            calls.append([call.type, call.function.name, json.loads(call.function.arguments)])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "clear, 3 C"})
        finish = given.finish_reason
    return {"calls": calls, "finish": finish, "answer": given.message.content}


async def tools_streamed():
    async with client.chat.completions.stream(
        model="chatter", messages=QUESTION, tools=[TOOL], tool_choice="required", temperature=0, max_tokens=60
    ) as parts:
        events = [event.type async for event in parts]
        (choice,) = (await parts.get_final_completion()).choices
    (call,) = choice.message.tool_calls
    parsed = call.function.parsed_arguments
    return {"call": [call.function.name, parsed], "finish": choice.finish_reason, "events": events}


async def parsed():
    answer = await client.chat.completions.parse(
        model="chatter", messages=QUESTION, response_format=Weather, temperature=0, max_tokens=60
    )
    return answer.choices[0].message.parsed.model_dump()


async def json_mode():
    answer = await client.chat.completions.create(
        model="chatter", messages=QUESTION, response_format={"type": "json_object"}, temperature=0, max_tokens=200
    )
    return json.loads(answer.choices[0].message.content)


async def completions():
    answer = await client.completions.create(model="chatter", prompt="Once upon a", **BRIEF)
    parts = await client.completions.create(model="chatter", prompt="Once upon a", stream=True, **BRIEF)
    return {"text": answer.choices[0].text, "streamed": "".join([part.choices[0].text async for part in parts])}


async def embeddings():
    texts = ["the sky", "grass"]
    packed = await client.embeddings.create(model="bert", input=texts)
    plain = await client.embeddings.create(model="bert", input=texts, encoding_format="float")
    return {
        "packed": [one.embedding for one in packed.data],
        "plain": [one.embedding for one in plain.data],
        "tokens": packed.usage.prompt_tokens,
    }


async def responses():
    first = await client.responses.create(
        model="chatter", instructions="Be brief.", input="Name a colour.", temperature=0, max_output_tokens=16
    )
    second = await client.responses.create(
        model="chatter", previous_response_id=first.id, input="Another.", temperature=0, max_output_tokens=16
    )
    return {
        "text": first.output_text,
        "statuses": [first.status, second.status],
        "second": second.output_text,
        "previous": second.previous_response_id == first.id,
        "input_tokens": [first.usage.input_tokens, second.usage.input_tokens],
    }


async def responses_streamed():
    async with client.responses.stream(
        model="chatter", instructions="Be brief.", input="Say yes.", temperature=0
    ) as parts:
        events = [event async for event in parts]
        final = await parts.get_final_response()
    return {
        "deltas": "".join(event.delta for event in events if event.type == "response.output_text.delta"),
        "text": final.output_text,
        "status": final.status,
        "numbers": [event.sequence_number for event in events] == list(range(len(events))),
    }


async def responses_tools():
    tool = {"type": "function", "name": "get_weather", "strict": True, "parameters": PARAMETERS}
    given = {"model": "chatter", "tools": [tool], "temperature": 0}
    called = await client.responses.create(
        input="What is the weather in Oslo?", tool_choice={"type": "function", "name": "get_weather"}, **given
    )
    (call,) = [item for item in called.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "clear, 3 C"}
    answer = await client.responses.create(
        input=[result], previous_response_id=called.id, tool_choice="none", max_output_tokens=16, **given
    )
    return {"call": [call.name, json.loads(call.arguments)], "answer": answer.output_text}


async def responses_agent():
    """Sends the conversation as it grows; its tool stands in a namespace."""
    tool = {"type": "function", "name": "get_weather", "strict": True, "parameters": PARAMETERS}
    space = {"type": "namespace", "name": "weather", "description": "The weather", "tools": [tool]}
    items = list(QUESTION)
    calls = []
    for choice, limit in (("required", 200), ("none", 16)):
        answer = await client.responses.create(
            model="chatter", input=items, tools=[space], tool_choice=choice, temperature=0, max_output_tokens=limit
        )
        items += answer.output
        for call in answer.output:
            if call.type == "function_call":
                calls.append([call.namespace, call.name, json.loads(call.arguments)])
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": "clear, 3 C"})
    return {"calls": calls, "answer": answer.output_text}


async def responses_tools_streamed():
    tool = openai.pydantic_function_tool(Weather, name="tell")
    tool = {"type": "function", **tool["function"]}
    async with client.responses.stream(
        model="chatter", input="Weather?", tools=[tool], tool_choice="required", temperature=0
    ) as parts:
        events = [event.type async for event in parts]
        final = await parts.get_final_response()
    (call,) = [item for item in final.output if item.type == "function_call"]
    arguments = call.parsed_arguments
    return {"call": [call.name, arguments if isinstance(arguments, dict) else arguments.model_dump()], "events": events}


async def responses_parsed():
    answer = await client.responses.parse(model="chatter", input="Weather?", text_format=Weather, temperature=0)
    return answer.output_parsed.model_dump()


async def transcriptions():
    create = client.audio.transcriptions.create
    sound = {"model": "hears", "extra_body": {"options": '{"num_predict": 5}'}}

    def file():
        return ("speech.wav", _tone(), "audio/wav")

    whole = await create(file=file(), **sound, language="en", include=["logprobs"], response_format="json")
    text = await create(file=file(), **sound, language="en", response_format="text")
    parts = await create(file=file(), **sound, language="en", stream=True)
    deltas, done = [], None
    async for event in parts:
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
        else:
            done = event
    found = {
        "text": whole.text,
        "tokens": "".join(one.token for one in whole.logprobs),
        "usage": [whole.usage.type, whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens],
        "as_text": text,
        "deltas": deltas,
        "done": [done.type, done.text, done.usage.output_tokens],
    }
    cases = {
        "deaf": {"model": "chatter", "file": file()},
        "times": {"model": "hears", "file": file(), "response_format": "verbose_json"},
        "kind": {"model": "hears", "file": ("speech.ogg", b"OggS" + bytes(60))},
        "streamed": {"model": "nope", "file": file(), "stream": True},
    }
    for name, given in cases.items():
        try:
            await create(**given)
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.body["message"]]
    return found


def _tone():
    """A second of a tone, as a WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes(
            b"".join(int(20000 * math.sin(n / 6)).to_bytes(2, "little", signed=True) for n in range(16000))
        )
    return file.getvalue()


async def errors():
    create = client.chat.completions.create
    found = {}
    for name, given in {
        "unknown": {"model": "nope", "messages": QUESTION},
        "empty": {"model": "chatter", "messages": []},
        "no_chat": {"model": "bert", "messages": QUESTION},
        "streamed": {"model": "nope", "messages": QUESTION, "stream": True},
    }.items():
        try:
            await create(**given)
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.body["message"]]
    return found


async def no_server():
    try:
        await AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0).models.list()
    except openai.APIConnectionError as error:
        return type(error).__name__
